"""The one reader of the environment."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def prepare_environment() -> None:
    """Defaults for Prefect and Ray that suit a command line; what the user has set stays. Call before importing
    either."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a first start makes its database: 20 s and more
        "PREFECT_API_REQUEST_TIMEOUT": "20",  # an API that never answers is given up after a minute, not seven
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command says what went wrong, without a traceback
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    if not ray_is_elsewhere():
        # Despite its name it is asked on every system: a cluster of this machine alone then listens on loopback alone.
        defaults["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        defaults |= _token_of_our_own()
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    _hide_prefect()


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


def _token_of_our_own() -> dict[str, str]:
    """A cluster of this machine alone asks for a token, from a file that no other user can read
    (`engine.ray_token` makes it): Ray's own, `~/.ray/auth_token`, is readable for everyone."""
    state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(state / "bfr" / "ray_token")}


def ray_is_elsewhere() -> bool:
    """Whether RAY_ADDRESS names a cluster; without it a run starts its own."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
