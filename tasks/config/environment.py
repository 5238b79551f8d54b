"""Environment variables that Prefect and Ray read when they are imported.

Both are made for servers; these defaults make them fit a command that runs once on one machine: no telemetry, short
timeouts, no traceback beside the command's own message.
"""

from __future__ import annotations

import gc
import os
import pwd
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from bfr_models.errors import UsageError

LOOPBACK = "localhost,127.0.0.1,::1"


def prepare_environment() -> None:
    """Sets defaults for Prefect and Ray; variables that the user has set stay. Call before importing either, since both
    read them at import."""
    _provide_home()
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # the first start takes 20 s or more
        "PREFECT_API_REQUEST_TIMEOUT": "20",  # with two retries: gives up on a dead API after a minute, not seven
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command reports errors itself, without a traceback
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, workers would build an environment of their own
    }
    if not ray_is_elsewhere():
        # Despite its name, Ray reads it on every system: at 0, a cluster on this machine only listens on loopback only.
        defaults["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        defaults |= _token_of_our_own() | _place_for_ray()
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    wait_briefly()
    _hide_prefect()
    _never_proxy_loopback()
    _pass_over_missing_certificates()


def wait_briefly() -> None:
    """Has OpenMP's threads wait awake for each other for less than a millisecond, not for 20. Call before torch is
    imported, since GNU's OpenMP reads it then.

    That is as fast on a machine that does nothing else; where other processes take a thread's core, its team would wait
    that long in each of some thousand operations of a network.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def expect_imports() -> None:
    """Has Python look for garbage less often: what libraries make while they are imported stays, and looking through
    it takes a fifth of the time."""
    gc.set_threshold(50_000, 20, 100)


def _provide_home() -> None:
    """Gives an account that has none, as in containers, a name and a home that can be written: a private folder of its
    own, for Prefect's database and Ray's token. A home that can be read stays, since it may hold credentials."""
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")) and not _has_entry():
        os.environ["USER"] = f"uid-{os.getuid()}"
    home = os.path.expanduser("~")
    if os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK):
        return
    own = _private_folder()
    if not os.path.isdir(home):
        os.environ["HOME"] = own
    os.environ.setdefault("PREFECT_HOME", os.path.join(own, "prefect"))
    os.environ.setdefault("XDG_STATE_HOME", own)


def _has_entry() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _private_folder() -> str:
    """A folder that is this user's alone, the same one each time if it can be had."""
    try:
        folder = os.path.join(tempfile.gettempdir(), f"bfr-{os.getuid()}")
    except OSError:
        raise UsageError(
            "expected a home or a folder for temporary files that this user can write, found none; set TMPDIR or HOME"
        ) from None
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if is_ours else tempfile.mkdtemp(prefix="bfr-")


def _hide_prefect() -> None:
    """Prefect's own home becomes its user's alone: it holds the settings of runs, and keys to Prefect's cloud. A home
    that PREFECT_HOME names is left as it is."""
    if os.environ.get("PREFECT_HOME"):
        return
    home = Path("~/.prefect").expanduser()
    with suppress(OSError):  # a home that cannot be written: Prefect has more to say of it
        home.mkdir(mode=0o700, exist_ok=True)
        if home.stat().st_uid == os.getuid() and home.stat().st_mode & 0o077:
            home.chmod(0o700)


def _never_proxy_loopback() -> None:
    """Prefect's server and Ray, which a run starts, are on this machine: no proxy that the user has set leads there."""
    found = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = dict.fromkeys(host.strip() for hosts in (*found, LOOPBACK) for host in hosts.split(",") if host.strip())
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):  # which of them is read, differs from library to library
        os.environ[name] = ",".join(hosts)


def _pass_over_missing_certificates() -> None:
    """As OpenSSL does: Prefect's client fails over a file that is not there, even where it asks this machine alone."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        if not os.path.exists(os.environ.get(name, "/")):
            del os.environ[name]


def _token_of_our_own() -> dict[str, str]:
    """A cluster of this machine alone asks for a token, from a file that no other user can read
    (`engine.ray_token` makes it): Ray's own, `~/.ray/auth_token`, is readable for everyone."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(state / "bfr" / "ray_token")}


def _place_for_ray() -> dict[str, str]:
    """The folder for temporary files that Python finds: Ray takes TMPDIR or /tmp, even one that cannot be written."""
    try:
        return {"RAY_TMPDIR": tempfile.gettempdir()}
    except OSError:
        return {}


def ray_is_elsewhere() -> bool:
    """Whether RAY_ADDRESS names an existing cluster; otherwise a run starts its own."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
