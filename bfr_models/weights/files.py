"""Where weight files are and what their cards say. Imports no torch.

A weight is a file and, beside it, a JSON card of the same stem that names the file and its sha256. The package ships
some in `assets`; fetched and imported ones are in the cache folder: `BFR_WEIGHTS`, else `$XDG_CACHE_HOME/bfr/weights`.
`bfr_models.weights.tensors` loads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from bfr_models.errors import BfrError, UsageError
from bfr_models.weights.catalogue import entry_of

ASSETS = Path(__file__).parents[1] / "assets"
SHIPPED = ("face128", "face256")  # presets whose weights come with the package

Card = dict[str, Any]


def cache_folder() -> Path:
    """The folder of fetched and imported weights, which need not exist. Nothing else reads these variables."""
    chosen = os.environ.get("BFR_WEIGHTS")
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return (Path(chosen) if chosen else base / "bfr" / "weights").expanduser().absolute()


def find_weight(stem: str) -> Path | None:
    """The weight file of that stem, in the package or in the cache; None if it is in neither."""
    for folder in (ASSETS, cache_folder()):
        card = folder / f"{stem}.json"
        if card.exists():
            path = folder / Path(read_card(card)["file"]).name
            if path.exists():
                return path
    return None


def require_weight(stem: str) -> Path:
    """As `find_weight`; UsageError, which says how to get it, if it is in neither place."""
    path = find_weight(stem)
    if path is None:
        raise UsageError(f"expected the weights {stem} in the package or in {cache_folder()}, {how_to_get(stem)}")
    return path


def read_card(path: Path) -> Card:
    """The card beside a weight file; it always has the `file` and its `sha256`."""
    try:
        card: Card = json.loads(path.with_suffix(".json").read_text())
        card["file"]
        card["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BfrError(
            f"expected a card beside {path.name}, found none that reads ({error!r}); {_remedy(path)}"
        ) from None
    return card


def check_weight(path: Path) -> str:
    """The file's sha256; BfrError unless it is the card's."""
    expected = read_card(path)["sha256"]
    found = file_sha256(path)
    if found != expected:
        raise damaged(path, expected, found)
    return found


def file_sha256(path: Path) -> str:
    """The whole file's, in lower-case hex. BfrError if it does not read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"expected weights at {path}, found none that read ({error}); {_remedy(path)}")


def damaged(path: Path, expected: str, found: str) -> BfrError:
    return BfrError(f"{path.name}: expected sha256 {expected}, found {found}; the file is damaged: {_remedy(path)}")


def _remedy(path: Path) -> str:
    if path.parent == ASSETS:
        return "reinstall the package"
    entry = entry_of(path.stem)
    return f"get it again with `bfr weights fetch {entry.name}`" if entry else "make or import it again"


def is_in_package(stem: str) -> bool:
    """Whether weights come with the package."""
    return any(f"-{preset}-" in stem for preset in SHIPPED)


def how_to_get(stem: str) -> str:
    """What to do about weights that are not here: the end of a message."""
    entry = entry_of(stem)
    if entry is None:
        method, _, rest = stem.partition("-")
        preset, _, component = rest.partition("-")
        return (
            f"found none; `bfr train {method} {component} --preset {preset}` makes such a file and its card: put them "
            "there; weights of face128 and face256 come with the package"
        )
    terms = f"{entry.licence}, non-commercial use only" if entry.non_commercial else entry.licence
    if entry.by_hand:
        return (
            f"found none; they are {entry.what}, under {terms}; get {entry.by_hand} by hand from {entry.origin}, then "
            f"`bfr weights import {entry.group} {entry.by_hand}`"
        )
    return (
        f"found none; they are {entry.what}, under {terms}; fetch them with "
        f"`bfr weights fetch {entry.to_fetch}`, or, with the files on disk, "
        f"`bfr weights import {entry.group} FILE...`"
    )
