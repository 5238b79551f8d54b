"""The faces that the judge is made from, and its pairs as files."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bfr_models.errors import UsageError
from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.pixels import Uint8Image
from bfr_models.registry import load_method, resolve_method
from bfr_models.training.data import decode_face, encoded_images, is_held_out, local_files
from bfr_models.training.judge_distances import Distances
from bfr_models.training.judge_pairs import Pair, make_pairs

TURNS = (  # of the methods, by batches of faces: those oftener whose faces differ most from the others'
    ("estimator", "face128"), ("diffbfr", "face128"), ("estimator", "face256"), ("difface", "face128"),
    ("difface", "face256"), ("clr_face", "face128"), ("diffbfr", "face256"), ("estimator", "face128"),
    ("difface", "face128"), ("clr_face", "face256"),
)  # fmt: skip
TRAIN, HELD_OUT = "train", "held_out"
SHARE_HELD_OUT = 0.12  # of the people: never learnt from, the calibration is theirs
ITEMS = {TRAIN: (5472, 2880), HELD_OUT: (2112, 1152)}
"""Faces of any damage, and after these of light, where it is hardest to say whether a face would gain."""
CHUNK = 96  # items in a file; both kinds' numbers are multiples of it


@dataclass(frozen=True)
class People:
    faces: Uint8Image  # (n, S, S, 3)
    names: tuple[str, ...]


MADE_OF = (
    "Openly licensed faces (MIT: synthetic; public domain: members of the US Congress, 1887 to today; CC0: photos; "
    "CC BY 4.0: DeBruine and Jones) at 256 px, in photos of their own: clean, slightly worn, aged as prints, and "
    "degraded by every preset; 40 to 508 px wide."
)


class Share(NamedTuple):
    """One of `of` equal shares, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        share = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= share.number <= share.of:
            raise argparse.ArgumentTypeError(f"expected a share such as 1/2, found {text}")
        return share

    def has(self, index: int) -> bool:
        return index % self.of == self.number - 1


ALL = Share(1, 1)


def read_people(path: Path, side: int) -> dict[str, People]:
    """Aligned faces of a Parquet file or a folder of them, by part: people are held out by name, else by picture."""
    faces: dict[str, list[Uint8Image]] = {part: [] for part in ITEMS}
    names: dict[str, list[str]] = {part: [] for part in ITEMS}
    for file in local_files(path):
        for data, person in encoded_images(file, "image"):
            part = HELD_OUT if is_held_out(person, data, SHARE_HELD_OUT) else TRAIN
            faces[part].append(decode_face(data, side, file.name))
            names[part].append(person or hashlib.sha256(data).hexdigest()[:16])
    return {part: People(np.stack(faces[part]), tuple(names[part])) for part in ITEMS}


def prepare_pairs(
    people: dict[str, People], retinaface: Path, folder: Path, share: Share, parts: Collection[str]
) -> None:
    """Makes the pairs of these parts, as files in `folder`; those that are there already stay. Identity is learnt, but
    not measured of people held out."""
    loaded = {turn: load_method(resolve_method(*turn)) for turn in set(TURNS)}
    methods = [(" ".join(turn), loaded[turn]) for turn in TURNS]
    distances, recogniser = Distances(retinaface), DlibRecogniser()
    folder.mkdir(parents=True, exist_ok=True)
    require_same_networks(folder)
    for seed, (part, (of_any, of_light)) in enumerate(ITEMS.items()):
        if part not in parts:
            continue
        own = people[part]
        for first in range(0, of_any + of_light, CHUNK):
            file = folder / f"{part}-{first:06d}.pairs"
            if file.exists() or not share.has(first // CHUNK):
                continue
            items, is_light = range(first, first + CHUNK), first >= of_any
            recognisers = [recogniser] if part == TRAIN else []
            made = make_pairs(own.faces, own.names, methods, distances, recognisers, items, seed, is_light)
            partial = file.with_suffix(".partial")
            torch.save([_plain(pair) for pair in made], partial)
            partial.replace(file)
            print(f"{part}: {items.stop} of {of_any + of_light} faces", flush=True)


def require_same_networks(folder: Path) -> None:
    """UsageError if pairs in the folder were made by others than today's: the card would tell of networks that the
    judge has not seen."""
    file, made_by = folder / "made_by.json", json.dumps({"turns": TURNS, "networks": networks()}, indent=2)
    if file.exists() and file.read_text() != made_by:
        raise UsageError(f"expected the pairs in {folder} of today's networks, found others'; take another --out")
    file.write_text(made_by)


def networks() -> dict[str, str]:
    """The checksums of the weights of all methods that take turns, by file."""
    resolved = [resolve_method(*turn) for turn in sorted(set(TURNS))]
    return {weight["file"]: weight["sha256"] for method in resolved for weight in method.weights.values()}


def read_pairs(folder: Path, part: str) -> list[Pair]:
    """The pairs of one part, `TRAIN` or `HELD_OUT`."""
    files = sorted(folder.glob(f"{part}-*.pairs"))
    return [_pair(*plain) for file in files for plain in torch.load(file, weights_only=True)]


def _plain(pair: Pair) -> tuple[Tensor, Tensor, int, dict[str, Any]]:
    return torch.from_numpy(pair.face), torch.from_numpy(pair.candidate), pair.side, pair.facts


def _pair(face: Tensor, candidate: Tensor, side: int, facts: dict[str, Any]) -> Pair:
    return Pair(face.numpy(), candidate.numpy(), side, facts)
