"""What of the documentation's commands can run here: block by block, on a few pictures, with nothing from elsewhere."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

from tasks.make_demo_faces import PORTRAITS, aged_portrait, make_demo_faces
from tasks.pack_pictures import pack_pictures
from tests import support
from tests.docs.commands import COMMANDS, Words, options, parse

MAKES = frozenset({"pack", "degrade", "restore", "assess", "export", "curate", "score", "evaluate", "reprocess"})
READS = frozenset({"verify", "explain", "report", "fid", "methods", "generations list", "weights list"})
OUTPUTS = ("destination", "folder")
ELSEWHERE = (
    "://",
    "retinaface",
    "realesrgan",
    "sharpen",
    "--stratify",
    "held-out/",
    "--only approved",
    "review",
    "--redo",
)
"""A store, weights that are fetched, a method that is not here, a column of one's own, decisions of people."""
SHARED: Words = ("bfr", "restore", "scans/", "restored/", "--input", "photos", "--method", "difface")
"""Run once; its result is what other blocks read."""


@dataclass(frozen=True)
class Story:
    """The commands of one block that can run, in order."""

    page: str
    block: int
    words: tuple[Words, ...]

    def __str__(self) -> str:
        return f"{self.page}-{self.block}"


def stories() -> list[Story]:
    """One for each block; blocks with the same commands are told once."""
    told: dict[tuple[Words, ...], Story] = {}
    for (page, block), found in groupby(COMMANDS, lambda command: (command.page, command.block)):
        words = tuple(command.words for command in found if _can_run(command.words) and command.words != SHARED)
        if words:
            told.setdefault(words, Story(page, block, words))
    return list(told.values())


def make_material(folder: Path) -> None:
    """Two aged portraits and a picture without a face as scans, aligned faces as datasets."""
    for (name, package, file), seed in zip(PORTRAITS, (5, 7), strict=True):
        path = folder / "scans" / "family" / ("wedding.png" if name == "eileen_collins" else f"{name}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(aged_portrait(package, file, seed)[1]).save(path)
    Image.fromarray(support.portrait(3)[:40]).save(folder / "scans" / "page.jpg")
    shutil.copytree(folder / "scans", folder / "aligned")
    make_demo_faces(str(folder / "pairs"))
    pairs = pq.read_table(folder / "pairs").to_pylist()[::3]
    shutil.rmtree(folder / "pairs")
    for name in ("faces", "inbox"):
        rows = [{"id": row["id"], "image": row["gt"]} for row in pairs]
        support.write_parquet(folder / name / "a.parquet", rows)
    theirs = [{"id": row["id"], "image": row["image"], "output": row["gt"], "gt": row["gt"]} for row in pairs]
    support.write_parquet(folder / "theirs" / "a.parquet", theirs)
    pack_pictures(str(folder / "scans"), str(folder / "photos"))


def lay_out(words: Words, material: Path, here: Path) -> None:
    """Copies what a command reads, unless a command before it has made it."""
    verb, parameters = parse(words)
    for name, value in parameters.items():
        if isinstance(value, str) and not (verb in MAKES and name in OUTPUTS):
            found, place = material / value, here / value
            if found.is_dir() and value.strip("/") and not place.exists():
                shutil.copytree(found, place)


def on_this_machine(words: Words) -> list[str]:
    """The command without its `bfr`, for threads of this process in place of Ray."""
    known = options(words[1:])[1]
    local = ["--engine", "local"] if "--engine" in known else ["--set", "engine=local"] if "--set" in known else []
    return [*words[1:], *local]


def _can_run(words: Words) -> bool:
    if words[0] != "bfr" or any(sign in " ".join(words) for sign in ELSEWHERE):
        return False
    return options(words[1:])[0] in MAKES | READS
