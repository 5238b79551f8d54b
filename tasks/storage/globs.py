"""URLs with patterns in them."""

from __future__ import annotations

from glob import has_magic


def split_glob(url: str) -> tuple[str, str] | None:
    """The folder above the first step with a pattern (`*`, `?`, `[...]`, `**`), and the pattern below it; None for a
    URL without one."""
    if not has_magic(url):
        return None
    steps = url.split("/")
    fixed = next(number for number, step in enumerate(steps) if has_magic(step))
    return "/".join(steps[:fixed]) or ("/" if fixed else "."), "/".join(steps[fixed:])
