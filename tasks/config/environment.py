"""Environment variables that Prefect and Ray read when they are imported.

Both are made for servers; these defaults make them fit a command that runs once on one machine: no telemetry, short
timeouts, no traceback beside the command's own message.
"""

from __future__ import annotations

import os


def prepare_environment() -> None:
    """Sets defaults for Prefect and Ray; variables that the user has set stay. Call before importing either, since both
    read them at import."""
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
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def ray_is_elsewhere() -> bool:
    """Whether RAY_ADDRESS names an existing cluster; otherwise a run starts its own."""
    return os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
