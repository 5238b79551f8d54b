"""The entry point `bfr`. It imports nothing slow, so that a signal is heard from the start."""

from __future__ import annotations

import io
import sys

from flows.cli.supervisor import supervise


def main() -> None:
    """The entry point `bfr`."""
    supervise(_command)


def _command() -> None:
    print_what_the_terminal_lacks()
    from tasks.config.environment import expect_imports

    expect_imports()
    from flows.cli.app import app

    app()


def print_what_the_terminal_lacks() -> None:
    """From here on, a letter that the terminal's encoding does not have is printed as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
