"""Puts a published weight file into the cache with its card: as it is, or converted to our networks' names."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bfr_models.errors import BfrError
from bfr_models.weights.catalogue import WeightEntry
from bfr_models.weights.files import Card, cache_folder
from tasks.storage.file_lock import node_lock
from tasks.storage.local_disk import replace_file

if TYPE_CHECKING:
    from torch import Tensor

Converter = Callable[[Mapping[str, "Tensor"]], dict[str, "Tensor"]]
Trust = Literal["published sha256", "trusted on first use", "imported, sha256 not known", "imported, another sha256"]
"""Why the source file was accepted: it is the published file, no sha256 was published, or it converts."""


@contextmanager
def place_for(entry: WeightEntry) -> Iterator[Path]:
    """The path at which to assemble the file, while no other process of this machine does; `install` moves it away."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with node_lock(folder / f".{entry.file}.lock", lambda: say(f"{entry.name}: another process is fetching it")):
            yield folder / f".{entry.file}.part"
    except OSError as error:
        raise BfrError(
            f"expected a writable folder with space for weights at {folder}, found {error}; free some space, or "
            "choose another folder with BFR_WEIGHTS"
        ) from error


def install(entry: WeightEntry, source: Path, name: str, sha256: str, trust: Trust) -> Card:
    """Turns `source`, published as `name`, into the entry's file in the cache; returns its card. Removes `source`.

    An old card is removed first and the new one written last, so that no card ever describes another file than the one
    beside it.
    """
    target = cache_folder() / entry.file
    card = target.with_suffix(".json")
    size = source.stat().st_size
    data = _converted(entry, source)
    card.unlink(missing_ok=True)
    if data is None:
        os.replace(source, target)
    else:
        replace_file(str(target), data)
        source.unlink()
    written: Card = {
        "name": entry.name,
        "what": entry.what,
        "licence": entry.licence,
        "licence_url": entry.licence_url,
        "non_commercial": entry.non_commercial,
        "origin": entry.origin,
        "source": {"file": name, "bytes": size, "sha256": sha256, "trust": trust},
        "converter": entry.converter,
        "file": entry.file,
        "bytes": size if data is None else len(data),
        "sha256": sha256 if data is None else hashlib.sha256(data).hexdigest(),
    }
    replace_file(str(card), (json.dumps(written, indent=2) + "\n").encode())
    return written


def convert(converter: str, path: Path) -> dict[str, Tensor]:
    """The checkpoint's tensors under our names. BfrError if it is not what the converter expects."""
    from bfr_models.weights.tensors import read_checkpoint

    module, _, function = converter.partition(":")
    apply: Converter = getattr(import_module(module), function)
    try:
        return apply(read_checkpoint(path))
    except (ValueError, KeyError, RuntimeError) as error:
        raise BfrError(f"expected a checkpoint that {function} can convert, found {error}") from error


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _converted(entry: WeightEntry, source: Path) -> bytes | None:
    """The converted file; None for an entry that is used as published."""
    if entry.converter is None:
        return None
    from bfr_models.weights.tensors import encode_weights

    try:
        return encode_weights(convert(entry.converter, source))
    except BfrError as error:
        source.unlink()
        raise BfrError(f"{entry.source_file} as {entry.name}: {error}; it was not kept") from error


def summary(card: Card) -> dict[str, Any]:
    """What commands print about an installed file."""
    return {**card, "path": str(cache_folder() / card["file"])}
