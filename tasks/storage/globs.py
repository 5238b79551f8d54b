"""URLs with `*`, `?` or `[...]` in them."""

from __future__ import annotations

from glob import has_magic


def split_glob(url: str) -> tuple[str, str]:
    """The folder that all matches are in, and the pattern below it."""
    steps = url.split("/")
    fixed = next(number for number, step in enumerate(steps) if has_magic(step))
    return "/".join(steps[:fixed]) or ("/" if fixed else "."), "/".join(steps[fixed:])
