"""The entry point `bfr`. It imports nothing slow, so that a signal is heard from the start."""

from __future__ import annotations

from flows.cli.supervisor import supervise


def main() -> None:
    """The entry point `bfr`."""
    supervise(_command)


def _command() -> None:
    from flows.cli.app import app

    app()
