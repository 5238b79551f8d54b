"""Imports published checkpoint files from disk into the cache."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bfr_models.errors import BfrError, UsageError
from bfr_models.weights.catalogue import WeightEntry, entries
from bfr_models.weights.files import file_sha256
from tasks.weights.install import Trust, convert, install, place_for, say, summary


def import_weights(method: str, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Finds out which component of the method each file is, converts it losslessly, and writes file and card.

    `method` may also be a preset or a single component (`difface/ffhq512/prior`). UsageError, before anything is
    written, if a file is none of the components, or two files are the same one.
    """
    known = entries(method)
    found = [(file, file_sha256(file)) for file in files]
    chosen: dict[str, tuple[WeightEntry, Path, str]] = {}
    for file, sha256 in found:
        entry = _recognise(known, file, sha256)
        if entry.name in chosen:
            raise UsageError(f"expected one file for {entry.name}, found {chosen[entry.name][1]} and {file}; choose")
        chosen[entry.name] = (entry, file, sha256)
    return [_install(*choice) for choice in chosen.values()]


def _recognise(known: list[WeightEntry], file: Path, sha256: str) -> WeightEntry:
    """The entry with this published sha256, or else the one whose converter accepts the file, all keys and shapes."""
    for entry in known:
        if entry.sha256 == sha256:
            return entry
    fitting, refusals = [], []
    for converter, entry in _first_by_converter(known).items():
        try:
            convert(converter, file)
        except BfrError as error:
            refusals.append(str(error))
        else:
            fitting.append(entry)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(entry.name for entry in fitting)
        raise UsageError(
            f"expected {file} to be one of {names}, found that it may be any of them; name it instead of METHOD"
        )
    names = ", ".join(f"{entry.source_file} (sha256 {entry.sha256 or 'unknown'})" for entry in known)
    if len(refusals) > 1:
        refusals = ["it fits none of their networks: name one component instead of METHOD to see what differs"]
    raise UsageError("; ".join([f"expected {file} to be one of {names}, found sha256 {sha256}", *refusals]))


def _first_by_converter(known: list[WeightEntry]) -> dict[str, WeightEntry]:
    """One entry for each converter: entries with the same converter cannot be told apart by their tensors."""
    firsts: dict[str, WeightEntry] = {}
    for entry in known:
        if entry.converter:
            firsts.setdefault(entry.converter, entry)
    return firsts


def _install(entry: WeightEntry, file: Path, sha256: str) -> dict[str, Any]:
    trust: Trust = "published sha256"
    if entry.sha256 is None:
        trust = "imported, sha256 not known"
    elif entry.sha256 != sha256:
        trust = "imported, another sha256"
        say(f"{file}: not the published {entry.source_file}, but it converts like it; imported as {entry.name}")
    with place_for(entry) as part:
        shutil.copyfile(file, part)
        card = install(entry, part, file.name, sha256, trust)
    return {**summary(card), "imported_from": str(file)}
