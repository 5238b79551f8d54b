"""The one reader of the environment."""

from __future__ import annotations

import os

LOOPBACK = "localhost,127.0.0.1,::1"


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
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    _never_proxy_loopback()


def _never_proxy_loopback() -> None:
    """Prefect's server and Ray, which a run starts, are on this machine: no proxy that the user has set leads there."""
    found = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    hosts = dict.fromkeys(host.strip() for hosts in (*found, LOOPBACK) for host in hosts.split(",") if host.strip())
    for name in ("no_proxy", "NO_PROXY"):  # which of the two is read, differs from library to library
        os.environ[name] = ",".join(hosts)


def ray_is_elsewhere() -> bool:
    """Whether RAY_ADDRESS names a cluster; without it a run starts its own."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
