"""Faces come page by page, each once, in any order and by any filter; what is decided about them survives."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bfr_models.errors import RowError, UsageError
from tasks.review.faces import ORDERS, Filter
from tasks.review.session import Session
from tasks.runs.reviews import FaceKey
from tasks.storage.store import Store
from tests import support
from tests.tasks.review.conftest import opened
from tests.tiled_photos import TILE, photo


def pages(session: Session, asked: Filter, limit: int = 5) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while some := session.page(asked, (found[-1]["key"], found[-1]["face"]) if found else None, limit):
        found += some
    return found


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("order", ORDERS)
def test_every_face_is_on_one_page_in_every_order(order: str, session: Session) -> None:
    found = pages(session, Filter(order=order))
    assert sorted(row["face"] for row in found) == list(range(17))
    assert [row["key"] for row in found] == sorted(row["key"] for row in found)


def test_a_face_is_known_by_its_row_in_the_source_also_behind_a_rejected_one(session: Session) -> None:
    rows = session.faces.rows(range(17))
    assert [row["source_row"] for row in rows] == [n for n in range(18) if n != 3]
    shard = session.run.shards[rows[-1]["file"]][0].id
    assert session.faces.key(rows[-1]) == FaceKey(shard, 17, 0)
    with pytest.raises(UsageError, match="numbers of faces of this run"):
        session.faces.rows([17])


def test_the_table_of_faces_is_made_once(copy: Path) -> None:
    before = pages(opened(copy), Filter())
    (path,) = (copy / "review").glob("faces-*.parquet")
    made = path.stat().st_mtime_ns
    assert pages(opened(copy), Filter()) == before and path.stat().st_mtime_ns == made
    assert pq.read_schema(path).names[:4] == ["face", "file", "row", "source_row"]
    path.write_bytes(b"damaged")
    assert pages(opened(copy), Filter()) == before and path.stat().st_size > 100


def test_a_run_in_an_object_store_is_reviewed_like_any_other(copy: Path) -> None:
    store = Store(f"memory://{uuid.uuid4().hex}")
    for path in copy.rglob("*.*"):
        store.write(path.relative_to(copy).as_posix(), path.read_bytes())
    first = opened(store.url())
    first.decide([4], "original")
    later = opened(store.url(), "Ben")
    assert len(pages(later, Filter(state="open"))) == 16
    assert pixels(later.pictures.cut(later.row(0), "after", small=True)).shape == (support.SIDE, support.SIDE, 3)


def test_decisions_survive_and_filter_the_faces(copy: Path) -> None:
    session = opened(copy)
    session.decide([0, 1], "approved")
    session.decide([1], "redo", {"method": "difface", "fidelity": 0.8})
    session.decide([2], "skipped")
    later = opened(copy, "Ben")  # the first session is gone without a word
    assert [row["face"] for row in pages(later, Filter(state="approved"))] == [0]
    (redo,) = pages(later, Filter(state="redo"))
    assert (redo["face"], redo["method"], redo["fidelity"], redo["by"]) == (1, "difface", 0.8, "Anna")
    assert len(pages(later, Filter(state="open"))) == 14 and len(pages(later, Filter(state="decided"))) == 2
    assert later.progress(Filter())["filter"] == {"faces": 17, "decided": 2}
    assert later.undo() == [], "the others' decisions are not undone"
    assert [row["face"] for row in opened(copy).undo()] == [2]


def test_two_reviewers_at_once_lose_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.review.session.REFRESH_SECONDS", 0)
    anna, ben = opened(copy), opened(copy, "Ben")
    for face in range(0, 16, 2):
        anna.decide([face], "approved")
        ben.decide([face + 1], "original")
    for one in (anna, ben, opened(copy, "Eve")):
        assert one.progress(Filter())["counts"] == {"approved": 8, "original": 8, "redo": 0, "skipped": 0}


@pytest.mark.parametrize(
    ("faces", "verdict", "redo", "message"),
    [
        ([99], "approved", None, "numbers of faces of this run"),
        ([], "approved", None, "expected a face to decide about"),
        ([0], "good", None, "unknown verdict 'good'"),
        ([0], "redo", None, "the name of a method"),
        ([0], "redo", {"method": "gfpgun", "fidelity": None}, "unknown method 'gfpgun'"),
        ([0], "redo", {"method": "difface", "fidelity": 2}, "a fidelity from 0 to 1, found 2"),
    ],
)
def test_nothing_is_written_that_no_run_could_do(
    faces: list[int], verdict: str, redo: dict[str, Any] | None, message: str, session: Session
) -> None:
    with pytest.raises(UsageError, match=message):
        session.decide(faces, verdict, redo)
    assert session.progress(Filter())["counts"]["approved"] == 0


def test_faces_are_shown_at_100_percent_and_photos_whole(mirror: str, tmp_path: Path) -> None:
    images = {"1931/é/two.png": photo(1, 2), "1950/one.png": photo(1, None)}
    rows = [
        {"id": name, "image": {"bytes": support.encoded(image), "path": name}, "date": f"about {name[:4]}-06"}
        for name, image in images.items()
    ]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path, mirror, input="photos"))
    session = opened(tmp_path / "dst")
    facts = session.faces.facts()
    assert facts["decades"] == [[1930, 2], [1950, 1]] and facts["folders"] == [["1931/é", 2], ["1950", 1]]
    assert [row["face"] for row in pages(session, Filter(decade=1950))] == [2]
    assert [row["face"] for row in pages(session, Filter(folder="1931", order="run"))] == [0, 1]
    assert [row["face"] for row in pages(session, Filter(score="side", low=TILE + 1))] == []
    row = session.row(1)
    before, after = (pixels(session.pictures.cut(row, which, small=True)) for which in ("before", "after"))
    original = images["1931/é/two.png"]
    left = round(1.5 * TILE - 0.625 * TILE)
    assert np.array_equal(before, original[: before.shape[0], left : left + before.shape[1]])
    assert before.shape == after.shape and not np.array_equal(before, after)
    assert pixels(session.pictures.photo(row, "before")).shape == original.shape
    image = session.image(1)
    assert (image["width"], image["height"]) == (original.shape[1], original.shape[0])
    assert [face["box"] for face in image["faces"]] == [[0, 0, TILE, TILE], [TILE, 0, 2 * TILE, TILE]]
    (tmp_path / "src" / "a.parquet").unlink()
    again = opened(tmp_path / "dst")
    with pytest.raises(RowError, match="found no file"):
        again.pictures.cut(row, "before", small=True)
    assert np.array_equal(pixels(again.pictures.cut(row, "after", small=True)), after)
