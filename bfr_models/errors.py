"""The errors a user can meet. Every message says what was expected, what was found, and what to do.

BfrError                 exit 1  a run failed; finished work is kept, and the same command resumes
├── UsageError           exit 2  wrong arguments or configuration, reported before any work starts
└── RowError             -       one row cannot be restored: it goes to `rejected/` and the run continues
"""

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Literal


class BfrError(Exception):
    """A run failed; running the same command again resumes it."""

    exit_code = 1


class UsageError(BfrError):
    """Wrong arguments or configuration."""

    exit_code = 2


RejectionCode = Literal[
    "missing",
    "undecodable",
    "too_large",
    "too_small",
    "not_square",
    "no_face",
    "unreadable",
    "bad_gt",
    "bad_landmarks",
    "bad_mask",
    "detector_failed",
    "judge_failed",
    "method_failed",
    "not_scored",
    "worker_killed",
]
"""Why a row is rejected: what users filter on, and retry. `not_scored` is of `bfr score` alone."""


class RowError(BfrError):
    """One row cannot be restored.

    `code` is stable; `detail` is for people.
    """

    def __init__(self, code: RejectionCode, detail: str) -> None:
        super().__init__(code, detail)  # both, so that it survives pickling
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the known one it looks like; "" if there is none."""
    by_letters = {each.lower().replace("-", "_"): each for each in known}
    nearest = get_close_matches(name.lower().replace("-", "_"), by_letters, 1)
    return f"; did you mean {by_letters[nearest[0]]!r}?" if nearest else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The one error for an unknown name: it lists the known ones, and says which of them it looks like."""
    names = list(known)
    return UsageError(f"unknown {kind} {name!r}; known: {', '.join(names)}{did_you_mean(name, names)}")


def exit_code_of(command: Callable[[], int]) -> int:
    """What the command returns, or what its BfrError stands for; that is said on standard error."""
    try:
        return command()
    except BfrError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
