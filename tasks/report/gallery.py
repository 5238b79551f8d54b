"""The pictures of a run's report: faces before and after, the photos that they are in, and some of the rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tasks.config.restore import RestoreRun
from tasks.report.cards import INPUT, TRUTH, Card, Hero, Photo, Reject, tile_budget
from tasks.report.choice import Place, Rows, chosen_faces, gains
from tasks.report.face_cards import Pictures, face_card, hero_of, photo_of
from tasks.report.image_cells import ImageCells
from tasks.report.pictures import opened, shown
from tasks.runs.plan import Plan
from tasks.runs.record import RunRecord
from tasks.runs.sealed import run_parquet
from tasks.runs.shards import Shard, from_table
from tasks.storage.store import Store

READ_BYTES = 2 * 2**30  # of images, for one page
REJECTS_PER_CODE, REJECT_PICTURES, REJECT_FILES = 6, 24, 64
REJECT_LADDER, REJECT_BYTES = ((160, 70), (96, 60)), 8_000
_CAPTION = (
    ("identity", "identity_similarity", ".3f"),
    ("to gt", "identity_similarity_gt", ".3f"),
    ("dB", "psnr", ".1f"),
)


@dataclass
class Gallery:
    """What is shown of a run."""

    cards: list[Card] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    hero: Hero | None = None


def run_gallery(
    store: Store, plan: Plan, manifest: Sequence[Mapping[str, Any]], run: RestoreRun, record: RunRecord
) -> Gallery:
    """The faces of a run that are worth a look, each cut out of its photo, before and after."""
    shards = {entry["data"]: shard for shard, entry in zip(from_table(plan.shards), manifest, strict=True)}
    chosen = chosen_faces(store, record.get("examples") or (), [path for path in shards if path])
    columns = (INPUT, run.method, *([TRUTH] if run.gt_column else []))
    made = _Gallery(
        store, run, record, columns, tile_budget(sum(len(faces) for faces, *_ in chosen.values()), len(columns))
    )
    made.best = max((gains(row) for _, _, rows in chosen.values() for row in rows.values()), default=-1.0)
    for path, (faces, ids, rows) in chosen.items():
        made.add_file(path, shards[path], faces, ids, rows)
        pa.default_memory_pool().release_unused()  # Arrow keeps what it freed, and these may have been large images
    return made.gallery


class _Gallery:
    def __init__(self, store: Store, run: RestoreRun, record: RunRecord, columns: Sequence[str], budget: int) -> None:
        self._store, self._run, self._columns, self._budget = store, run, columns, budget
        self._recogniser = (record.get("recogniser") or {}).get("name")
        self._cells = ImageCells(READ_BYTES)
        self.gallery, self.best = Gallery(), -1.0

    def add_file(self, path: str, shard: Shard, faces: Sequence[Place], ids: Sequence[str], rows: Rows) -> None:
        """The cards of the faces of one data file."""
        numbers = sorted(rows)
        inputs = self._cells.of_source(shard.with_secrets(self._run.source), self._run.column, ids, numbers)
        gt = self._run.gt_column
        truths: dict[int, bytes | None] = {}
        if gt is not None:  # a row may be its own ground truth: then the output does not have it
            own = gt == self._run.column
            truths = dict(inputs if own else self._cells.of_run(self._store, path, gt, numbers))
        for number, image in self._restored(path, numbers):
            pictures = Pictures(inputs.pop(number, None), image, truths.pop(number, None))
            self._add_row(rows[number], pictures, [face for row, face in faces if row == number])

    def _restored(self, path: str, numbers: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        left = list(numbers)
        for number, image in self._cells.of_run(self._store, path, "restored", numbers):
            left.remove(number)
            yield number, image
        yield from ((number, None) for number in left)

    def _add_row(self, row: Mapping[str, Any], pictures: Pictures, faces: Sequence[int]) -> None:
        photo = photo_of(row, pictures)
        if photo is not None:
            self.gallery.photos.append(photo)
        if photo is not None and self.gallery.hero is None and gains(row) == self.best >= 0:
            self.gallery.hero = hero_of(row, pictures)
        number = len(self.gallery.photos) - 1 if photo else None
        for face in faces:
            card = face_card(row, face, pictures, self._columns, self._budget, self._recogniser, number)
            self.gallery.cards.append(card)


def example_rejects(store: Store, manifest: Sequence[Mapping[str, Any]]) -> list[Reject]:
    """Some rejected rows of each code among the first, with small pictures of those that can be drawn."""
    found: list[Reject] = []
    cells, counts = ImageCells(READ_BYTES // 4), Counter[str]()
    paths = [entry["rejected"] for entry in manifest if entry["rejected"]]
    for path in paths[:REJECT_FILES]:
        with run_parquet(store, path) as parquet:
            rows = parquet.read(columns=["id", "error", "detail"]).to_pylist()
        taken = []
        for number, row in enumerate(rows):
            counts[row["error"]] += 1
            if counts[row["error"]] <= REJECTS_PER_CODE:
                taken.append(number)
        some = taken[: max(REJECT_PICTURES - len(found), 0)]
        images = dict(cells.of_run(store, path, "image", some)) if some else {}
        found += [_reject(rows[number], images.get(number)) for number in taken]
    return found


def _reject(row: Mapping[str, Any], image: bytes | None) -> Reject:
    picture = None
    with suppress(Exception):  # Pillow can raise anything, and it is a picture that may be broken
        if image:
            small, size = opened(image, REJECT_LADDER[0][0])
            picture = shown(small, REJECT_BYTES, size, REJECT_LADDER)
    return Reject(row["id"], row["error"], row["detail"], picture)


def caption(row: Mapping[str, Any]) -> str:
    """The scores of a restored row as a caption."""
    return " · ".join(f"{label} {row[key]:{form}}" for label, key, form in _CAPTION if row.get(key) is not None)
