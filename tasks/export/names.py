"""File names for exported images: those that they came with, as far as they are safe.

A dataset can name anything: `../../etc/passwd`, an absolute path, NUL, a name that another row has as well. Whatever it
says, no name leads out of the folder, and none is given twice.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import count
from urllib.parse import unquote, urlsplit

MAX_STEP, MAX_PATH = 255, 1000  # bytes: of a name on Linux, macOS and Windows; of a key in S3, with some to spare

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WINDOWS = re.compile(
    r"(\\\\\?\\)?(?=[A-Za-z]:\\|\\\\)"
)  # a drive or a share; before it what lifts the limit on length
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # and lone surrogates, which no file system takes as UTF-8
_DEVICE = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?", re.IGNORECASE | re.DOTALL)


def safe_path(path: str) -> str:
    """A relative path with `/` that is the given one, unless that is hostile; never empty.

    Of an address, the path; of an absolute path of Windows (`D:\\a\\b.jpg`), its steps. Steps like `..`, drives and a
    leading `/` go, control characters become `_`, names of Windows' devices (`NUL`, `com1.jpg`) get a `_` in front, and
    what is too long for a disk is cut and gets a digest.
    """
    if _ADDRESS.match(path):
        path = unquote(urlsplit(path).path)
    elif windows := _WINDOWS.match(path):
        path = path[windows.end() :].replace("\\", "/")
    steps = [_safe_step(step) for step in path.split("/") if step not in ("", ".", "..")]
    if steps and _DRIVE.fullmatch(steps[0]):
        steps = steps[1:]
    steps = steps or ["unnamed"]
    safe = "/".join(steps)
    return safe if len(safe.encode()) <= MAX_PATH else f"{_digest(safe)}/{steps[-1]}"


def _safe_step(step: str) -> str:
    step = _CONTROL.sub("_", step)
    return shortened(f"_{step}" if _DEVICE.fullmatch(step) else step)


def shortened(step: str, ending: str = "") -> str:
    """A file name, with `ending`, of at most 255 bytes: a longer one is cut, and gets a digest before its extension."""
    if len((step + ending).encode()) <= MAX_STEP:
        return step + ending
    stem, dot, extension = step.rpartition(".")
    if not stem or len(extension) > 16:
        stem, dot, extension = step, "", ""
    tail = f"~{_digest(step)}{dot}{extension}{ending}"
    return stem.encode()[: MAX_STEP - len(tail.encode())].decode(errors="ignore") + tail


def with_ending(path: str, ending: str) -> str:
    """The path with something behind it: `a/b.jpg`, `.json` -> `a/b.jpg.json`."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + shortened(name, ending)


def with_suffix(path: str, suffix: str) -> str:
    """The path with something before its extension: `a/b.jpg`, `_new` -> `a/b_new.jpg`."""
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    return folder + slash + shortened(f"{stem}{suffix}{dot}{extension}" if stem else f"{name}{suffix}")


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).hexdigest()


class Names:
    """Gives names, each once. Of a name it keeps 64 bits: two that had the same would merely be told apart."""

    def __init__(self, *, ignores_case: bool = False) -> None:
        """`ignores_case`: the disk takes `A.jpg` and `a.jpg`, and é in one character or two, for one file."""
        self._ignores_case = ignores_case
        self._files = set[int]()
        self._folders = set[int]()
        self._last = Counter[int]()  # the highest number that a name has needed so far

    def take(self, names: Iterable[str]) -> None:
        """Names that have been given before."""
        for name in names:
            self._note(name)

    def give(self, wanted: str) -> str:
        """The wanted name, or the first of `a~2.jpg`, `a~3.jpg`, ... that is free. A file and a folder never share a
        name."""
        folder, slash, name = self._free_folders(wanted).rpartition("/")
        first = self._key(folder + slash + name)
        for number in count(self._last[first] + 1):
            path = folder + slash + (name if number == 1 else with_suffix(name, f"~{number}"))
            if self._key(path) not in self._files and self._key(path) not in self._folders:
                self._note(path)
                if number > 1:  # most names come once, and need no entry
                    self._last[first] = number
                return path
        raise AssertionError("the numbers do not end")

    def _free_folders(self, path: str) -> str:
        """The path with other folders in place of those that are files."""
        *folders, name = path.split("/")
        done: list[str] = []
        for folder in folders:
            others = (folder if number == 1 else f"{folder}~{number}" for number in count(1))
            done.append(next(one for one in others if self._key("/".join([*done, one])) not in self._files))
        return "/".join([*done, name])

    def _note(self, path: str) -> None:
        self._files.add(self._key(path))
        while path := path.rpartition("/")[0]:
            self._folders.add(self._key(path))

    def _key(self, path: str) -> int:
        if self._ignores_case:
            path = unicodedata.normalize("NFC", path).casefold()
        return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest())
