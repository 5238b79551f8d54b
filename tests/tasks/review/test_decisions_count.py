"""`export`, `curate` and `restore --redo` go by what is decided about faces; `verify` and the others leave it alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfr_models.errors import UsageError
from tasks.config.curate import CurateRun
from tasks.config.resolve import resolve_run
from tasks.config.restore import RestoreRun
from tasks.curate_run import curate_run
from tasks.export_run import export_run
from tasks.images.codec import decode
from tasks.repair_run import repair_run
from tasks.review.faces import Filter
from tasks.runs.layout import DECISIONS
from tasks.runs.plan import latest_plan
from tasks.runs.redo import redo_settings
from tasks.runs.reviews import APPROVED, ORIGINAL, REDO, SKIPPED, Decision, FaceKey, Redo, Reviews, read_reviews
from tasks.runs.shards import from_table
from tasks.storage.store import Store
from tasks.vacuum_run import vacuum_run
from tasks.verify_run import verify_run
from tests import support
from tests.tasks.review.conftest import opened
from tests.tiled_photos import TILE, photo

PHOTOS = {"one.png": photo(1, None), "two.png": photo(1, 2), "three.png": photo(1, 2, 3), "none.png": photo(None, None)}
NAMES = sorted(PHOTOS)


@pytest.fixture
def run(mirror: str, tmp_path: Path) -> Path:
    """Four photos with 0 to 3 faces, each mirrored; two rows a shard."""
    rows = [{"id": name, "image": {"bytes": support.encoded(PHOTOS[name]), "path": name}} for name in NAMES]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, group_rows=2)
    support.finished_run(support.make_run(tmp_path, mirror, input="photos", shard_rows=2))
    return tmp_path / "dst"


def decide(run: Path, *decisions: tuple[str, int, str], redo: Redo | None = None) -> None:
    store = Store(str(run))
    shard_of = {number: shard.id for shard in from_table(latest_plan(store).shards) for number in shard.numbers}
    found = [
        Decision(FaceKey(shard_of[row], row, face), name, verdict, redo if verdict == REDO else None)
        for name, face, verdict in decisions
        for row in [NAMES.index(name)]
    ]
    read_reviews(store).decide("Anna", found)


def exported(run: Path, folder: str, **asked: Any) -> dict[str, Any]:
    export_run(str(run), str(run.parent / folder), **asked)
    names = [name for name in NAMES if (run.parent / folder / name).exists()]
    return {name: (run.parent / folder / name).read_bytes() for name in names}


def changed_tiles(name: str, data: bytes) -> list[int]:
    """The tiles of a photo that are not those of the input; all else has to be the input's."""
    before, after = PHOTOS[name].copy(), decode(data).pixels.copy()
    found = []
    for tile in range(before.shape[1] // TILE):
        place = (slice(0, TILE), slice(TILE * tile, TILE * (tile + 1)))
        if not np.array_equal(before[place], after[place]):
            found.append(tile)
        before[place] = after[place] = 0
    assert np.array_equal(before, after)
    return found


def test_only_what_is_approved_is_exported_face_by_face(run: Path) -> None:
    with pytest.raises(UsageError, match=r"expected decisions.*found none; `bfr review"):
        exported(run, "none", only="approved")
    decide(run, ("one.png", 0, SKIPPED), ("two.png", 0, APPROVED), ("two.png", 1, ORIGINAL))
    decide(run, ("three.png", 0, APPROVED), ("three.png", 2, APPROVED), ("none.png", 0, APPROVED))
    found = exported(run, "approved", only="approved")
    assert {name: changed_tiles(name, data) for name, data in found.items()} == {"two.png": [0], "three.png": [0, 2]}
    record = json.loads((run.parent / "approved" / "two.png.json").read_text())
    outcomes = [face["outcome"] for face in record["rows"][0]["faces"]]
    assert outcomes == ["restored", "kept_original: by review (restored)"]
    assert record["rows"][0]["faces"][0]["review"]["by"] == "Anna"
    whole = exported(run, "all")
    assert {name: changed_tiles(name, data) for name, data in whole.items()} == {
        "none.png": [], "one.png": [0], "three.png": [0, 1, 2], "two.png": [0],
    }  # fmt: skip


def test_a_photo_whose_faces_are_all_refused_is_the_file_of_before(run: Path) -> None:
    decide(run, ("two.png", 0, ORIGINAL), ("two.png", 1, ORIGINAL))
    assert exported(run, "all")["two.png"] == support.encoded(PHOTOS["two.png"])
    assert "two.png" not in exported(run, "changed", only="changed")
    decide(run, ("two.png", 0, APPROVED))
    with pytest.raises(UsageError, match="found another export"):
        exported(run, "all")


def test_an_enlarged_photo_is_all_or_nothing(mirror: str, tmp_path: Path) -> None:
    rows = [{"id": name, "image": {"bytes": support.encoded(PHOTOS[name]), "path": name}} for name in NAMES]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    support.finished_run(support.make_run(tmp_path, mirror, input="photos", upscale=2))
    run = tmp_path / "dst"
    decide(run, ("two.png", 0, APPROVED), ("two.png", 1, ORIGINAL), ("one.png", 0, APPROVED))
    report = export_run(str(run), str(tmp_path / "out"), only="approved")
    assert report["changed"] == 1 and report["missing"] == 1
    assert report["not_exported"][0]["id"] == "two.png" and "written it larger" in report["not_exported"][0]["why"]
    assert [path.name for path in sorted((tmp_path / "out").glob("*.png"))] == ["one.png"]


def test_where_faces_overlap_the_refused_one_has_the_inputs_pixels(run: Path) -> None:
    from tasks.export.make import _pasted
    from tasks.export.notes import Notes
    from tasks.export.rows import open_export

    decide(run, ("two.png", 0, APPROVED), ("two.png", 1, ORIGINAL))
    row = next(row for number in range(2) for row in open_export(str(run)).rows(number) if row.id == "two.png")
    row.refused[0]["landmarks"] = [x - TILE / 2 if i % 2 == 0 else x for i, x in enumerate(row.refused[0]["landmarks"])]
    notes = Notes()
    region = _pasted(row, "retinaface", notes)
    assert region is not None
    mask = region(PHOTOS["two.png"].shape[:2])
    assert mask[TILE // 2, TILE // 4] and not mask[TILE // 2, 3 * TILE // 4]
    assert notes == ["a face that stays overlaps one that was refused: where they do, it has the input's pixels"]


def test_curate_goes_by_what_the_verdicts_come_to(run: Path, tmp_path: Path) -> None:
    def curated(folder: str, where: str) -> list[str]:
        curate_run(CurateRun(source=str(run), destination=str(tmp_path / folder), where=where, by="seed"))
        return sorted(support.read_ids(tmp_path / folder / "data"))

    decide(run, ("one.png", 0, APPROVED), ("two.png", 0, APPROVED), ("two.png", 1, ORIGINAL), ("three.png", 1, REDO),
           redo=Redo("difface"))  # fmt: skip
    assert curated("a", "review = 'approved'") == ["one.png"]
    assert curated("b", "review = 'mixed'") == ["two.png"] and curated("c", "review IS NULL") == ["none.png"]
    decide(run, ("two.png", 1, APPROVED))
    with pytest.raises(UsageError, match="found another"):
        curated("a", "review = 'approved'")
    assert curated("d", "review = 'approved'") == ["one.png", "two.png"]


def test_redo_is_a_run_over_what_is_marked_in_the_way_that_was_chosen(run: Path, tmp_path: Path, mirror: str) -> None:
    asked = {"source": str(run), "destination": str(tmp_path / "redone")}
    with pytest.raises(UsageError, match="marked to be redone, found none"):
        redo_settings(asked)
    decide(run, ("two.png", 1, REDO), ("three.png", 0, REDO), ("three.png", 2, REDO), redo=Redo("passthrough"))
    settings = redo_settings(asked | {"engine": "local"})
    assert (settings["method"], settings["input"], settings["source"]) == (
        "passthrough",
        "photos",
        str(tmp_path / "src"),
    )
    record = support.finished_run(RestoreRun(**settings))
    assert sorted(support.read_ids(tmp_path / "redone" / "data")) == ["three.png", "two.png"]
    assert record["selection"]["selected"] == 2
    support.assert_whole(tmp_path / "redone", 2)
    found = exported(tmp_path / "redone", "files")
    assert sorted(found) == ["three.png", "two.png"], "the rows that a run was limited to are exported"
    decide(run, ("one.png", 0, REDO), redo=Redo("difface", 0.8))
    with pytest.raises(UsageError, match=r"found 2 among(.|\n)*--redo --method difface --fidelity 0.8  \(1 images\)"):
        redo_settings(asked)
    both = redo_settings(asked | {"method": "difface"})
    assert (both["fidelity"], both["select_where"]) == (0.8, "redo_method = 'difface' AND redo_fidelity = 0.8")


def test_redo_by_the_same_method_keeps_the_options_that_a_fidelity_does_not_set(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", [row | {"id": NAMES[0]} for row in support.make_rows(1)])
    options = {"steps": 1, "self_ensemble": False}
    support.finished_run(support.make_run(tmp_path, "difface", options=options, recogniser="none"))
    for redo, kept in ((Redo("difface"), options), (Redo("difface", 0.8), {"self_ensemble": False})):
        decide(tmp_path / "dst", (NAMES[0], 0, REDO), redo=redo)
        settings = redo_settings({"source": str(tmp_path / "dst"), "destination": str(tmp_path / "redone")})
        assert settings["options"] == kept
        resolve_run(RestoreRun(**settings))


def test_a_face_that_was_restored_again_since_is_as_nobody_has_seen_it(run: Path, tmp_path: Path, mirror: str) -> None:
    """The approval is of another picture: it is told, and everything goes on as without it."""
    session = opened(run)
    for rows, verdict, redo in (([0, 1], "original", None), ([2], "redo", {"method": "passthrough"})):
        session.decide(rows, verdict, redo)
    assert session.progress(Filter())["outdated"] == 0
    for path in (run / "data").iterdir():
        path.unlink()
    repair_run(str(run))
    support.finished_run(support.make_run(tmp_path, mirror, input="photos", shard_rows=2))
    later = opened(run)
    assert later.progress(Filter())["outdated"] == later.result()["outdated"] == 3
    assert [row["verdict"] for row in later.page(Filter(), None, 10)] == [None] * 6
    report = export_run(str(run), str(tmp_path / "out"))
    assert (report["changed"], report["outdated_decisions"]) == (3, 3)
    with pytest.raises(UsageError, match="found 3 about what they were before"):
        exported(run, "none", only="approved")
    with pytest.raises(UsageError, match="found 3 decisions about what faces were before"):
        redo_settings({"source": str(run), "destination": str(tmp_path / "redone")})
    curated = curate_run(CurateRun(source=str(run), destination=str(tmp_path / "c"), where="review IS NULL", by="seed"))
    assert (curated["counts"]["kept"], curated["outdated_decisions"]) == (4, 3)


def test_verify_vacuum_and_repair_know_decisions_and_leave_them_alone(run: Path) -> None:
    decide(run, ("two.png", 0, APPROVED), ("two.png", 1, ORIGINAL))
    (run / DECISIONS / ".0.tmp").write_bytes(b"left behind")
    for path in run.rglob("*"):
        os.utime(path, (0, 0))
    before = sorted((run / DECISIONS).glob("*.json"))
    removed = vacuum_run(str(run))["removed"]
    assert [entry["what"] for entry in removed] == ["temporary file"]
    found = verify_run(str(run))
    assert found["ok"] and found["decisions"] == 2
    (run / "manifest.parquet").unlink()
    repair_run(str(run))
    assert sorted((run / DECISIONS).glob("*.json")) == before
    before[0].write_text("{")
    assert [problem["kind"] for problem in verify_run(str(run))["problems"] if "review" in problem["kind"]] == [
        "review_damaged"
    ]
    repair_run(str(run))
    assert not list((run / DECISIONS).glob("*.json")) and verify_run(str(run))["set_aside"]
    assert Reviews(Store(str(run))).refresh() == set()
