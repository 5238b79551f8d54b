"""The errors a user can meet. Every message says what was expected, what was found, and what to do.

BfrError                 exit 1  a run failed; finished work is kept, and the same command resumes
├── UsageError           exit 2  wrong arguments or configuration, reported before any work starts
└── RowError             -       one row cannot be restored: it goes to `rejected/` and the run continues
"""


class BfrError(Exception):
    """A run failed; running the same command again resumes it."""

    exit_code = 1


class UsageError(BfrError):
    """Wrong arguments or configuration."""

    exit_code = 2


class RowError(BfrError):
    """One row cannot be restored.

    `code` is stable (users filter on it); `detail` is for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)  # both, so that it survives pickling
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def unknown(kind: str, name: str, known: "list[str] | tuple[str, ...]") -> UsageError:
    """The one error for an unknown name: it lists the known ones."""
    return UsageError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
