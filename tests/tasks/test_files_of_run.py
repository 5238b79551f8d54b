"""A run that is given files packs them into itself, once; what is new later goes into further files."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from glob import glob
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bfr_models.errors import BfrError, UsageError
from tasks.config.curate import CurateRun
from tasks.curate_run import curate_run
from tasks.datasets.image_files import image_files
from tasks.export.rows import open_export
from tasks.export_run import export_run
from tasks.pack_pictures import files_of_run, pack_pictures
from tasks.repair_run import repair_run
from tasks.review.index import make_index
from tasks.runs.layout import LEFT_OUT, SOURCE, SUMS
from tasks.runs.outcomes import rejects_too_many, standing_rejects, standing_rows
from tasks.runs.packed import read_packed
from tasks.runs.source import open_source
from tasks.runs.spec import read_spec
from tasks.storage.store import Store
from tasks.vacuum_run import vacuum_run
from tasks.verify_run import verify_run
from tests import support

CLOSED_LATER = ("checksum", "superseded_rejects", "left_out")  # keys of run.json


def picture(number: int) -> bytes:
    return support.encoded(support.portrait(number))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    (folder / "a").mkdir(parents=True)
    for name, number in {"1.png": 1, "a/2.png": 2}.items():
        (folder / name).write_bytes(picture(number))
    (folder / "notes.txt").write_text("x")
    return folder


def packed_ids(destination: Path) -> list[str]:
    files = open_source(f"{destination}/{SOURCE}")
    return [row_id for store, file in files for row_id in pq.read_table(store.url(file.path))["id"].to_pylist()]


def pack(source: Path | str, destination: Path) -> Any:
    files = files_of_run(str(source), str(destination))
    assert files is not None and files.url == f"{destination}/{SOURCE}"
    return files.pack()


def restore(source: str, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    return support.finished_run(support.make_run(tmp_path, source=source, recogniser="none", **settings))


def test_files_are_packed_once_and_what_is_new_later(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    assert pack(scans, out).rows == 2
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert pack(scans, out).rows == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    (scans / "3.png").write_bytes(picture(3))
    (scans / "1.png").write_bytes(picture(4))
    (scans / "a" / "2.png").unlink()
    files = files_of_run(str(scans), str(out))
    assert files is not None and (sorted(files.todo), files.changed) == (["1.png", "3.png"], 1)
    assert files.pack().rows == 2
    assert packed_ids(out) == ["1.png", "a/2.png", "1.png", "3.png"] or sorted(packed_ids(out)) == [
        "1.png", "1.png", "3.png", "a/2.png",
    ]  # fmt: skip


def test_a_run_of_files_resumes_verifies_and_exports(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    pack(scans, out)
    first = restore(f"{out}/{SOURCE}", tmp_path)
    assert first["totals"]["rows"] == 2
    pack(scans, out)
    again = restore(f"{out}/{SOURCE}", tmp_path)
    assert (again["plan"], again["finished"]) == (0, first["finished"])
    assert verify_run(str(out))["ok"]
    (scans / "3.png").write_bytes(picture(3))
    pack(scans, out)
    assert (record := restore(f"{out}/{SOURCE}", tmp_path))["plan"] == 1 and record["totals"]["rows"] == 3
    moved = out.rename(tmp_path / "moved")
    report = export_run(str(moved), str(tmp_path / "files"))
    assert (report["images"], report["missing"]) == (3, 0), "a run that has moved has its source with it"
    assert {"1.png", "a/2.png", "3.png"} <= set(Store(str(tmp_path / "files")).list())


@pytest.fixture
def copied(scans: Path, tmp_path: Path) -> Path:
    """A finished run of files, copied without its times."""
    pack(scans, tmp_path / "dst")
    restore(f"{tmp_path}/dst/{SOURCE}", tmp_path)
    shutil.copytree(tmp_path / "dst", tmp_path / "copy" / "dst", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "dst")
    return tmp_path / "copy" / "dst"


def test_a_copy_of_a_run_exports_verifies_and_goes_on(scans: Path, copied: Path, tmp_path: Path) -> None:
    report = export_run(str(copied), str(tmp_path / "files"))
    assert (report["images"], report["missing"]) == (2, 0)
    assert verify_run(str(copied))["ok"] and not repair_run(str(copied)).found
    before = read_spec(Store(str(copied)))["source"]
    again = restore(f"{copied}/{SOURCE}", copied.parent)
    assert (again["plan"], again["totals"]["rows"]) == (0, 2), "nothing is new"
    (scans / "3.png").write_bytes(picture(3))
    assert pack(scans, copied).rows == 1
    done = set(Store(str(copied)).list("commits"))
    again = restore(f"{copied}/{SOURCE}", copied.parent)
    assert (again["plan"], again["totals"]["rows"]) == (1, 3)
    assert done < set(Store(str(copied)).list("commits")), "what was done before it was copied counts"
    assert verify_run(str(copied))["ok"] and read_spec(Store(str(copied)))["source"] == before
    assert export_run(str(copied), str(tmp_path / "more"))["missing"] == 0


def test_a_copy_of_a_run_is_mended_from_its_own_source(copied: Path) -> None:
    next((copied / "data").iterdir()).write_bytes(b"")
    repair = repair_run(str(copied))
    assert repair.resolved is not None and repair.todo
    support.finished_run(repair.resolved.run)
    assert verify_run(str(copied))["ok"]


def test_a_copy_that_has_lost_its_plan_has_each_row_once(copied: Path) -> None:
    for path in (copied / "plan").glob("0*"):
        path.unlink()
    restore(f"{copied}/{SOURCE}", copied.parent)
    found = verify_run(str(copied))
    assert found["ok"] and found["rows_in"] == 2


def test_a_packed_file_that_is_short_or_gone_is_found_and_nothing_is_exported(copied: Path, tmp_path: Path) -> None:
    (part,) = (path for path in (copied / SOURCE).rglob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    (problem,) = verify_run(str(copied))["problems"]
    assert (problem["kind"], problem["where"]) == ("source_changed", f"{SOURCE}/{part.parent.name}/{part.name}")
    part.unlink()
    (problem,) = verify_run(str(copied))["problems"]
    assert problem["kind"] == "source_missing"
    assert export_run(str(copied), str(tmp_path / "files"))["missing"] == 2


def test_an_empty_file_is_named_and_comes_back_empty(scans: Path, tmp_path: Path) -> None:
    (scans / "empty.jpg").write_bytes(b"")
    pack(scans, tmp_path / "dst")
    restore(f"{tmp_path}/dst/{SOURCE}", tmp_path)
    (rejected,) = support.read_table(tmp_path / "dst" / "rejected").to_pylist()
    assert (rejected["error"], rejected["image"]) == ("undecodable", {"bytes": b"", "path": "empty.jpg"})
    assert rejected["detail"] == "expected a picture, found an empty file (0 bytes)"
    report = export_run(f"{tmp_path}/dst", str(tmp_path / "files"))
    assert (report["rejected"], report["missing"]) == (1, 0)
    assert (tmp_path / "files" / "empty.jpg").read_bytes() == b""


@pytest.mark.parametrize("kind", ["zip", "one file", "glob"])
def test_other_kinds_of_files(kind: str, scans: Path, tmp_path: Path) -> None:
    sources = {"zip": tmp_path / "all.zip", "one file": scans / "1.png", "glob": f"{scans}/*.png"}
    with zipfile.ZipFile(sources["zip"], "w") as archive:  # type: ignore[arg-type]
        for name in ("1.png", "a/2.png"):
            archive.write(scans / name, name)
    assert pack(sources[kind], tmp_path / "dst").rows == (2 if kind == "zip" else 1)
    assert pack(sources[kind], tmp_path / "dst").rows == 0
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "all.zip", "a") as archive:
            archive.writestr("3.png", picture(3))
        with pytest.raises(UsageError, match=r"expected all\.zip as it was when it was packed"):
            files_of_run(str(sources[kind]), str(tmp_path / "dst"))


def test_datasets_are_no_files(scans: Path, tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    for source in ("src", "src/a.parquet", "src/*.parquet", "nothing", "https://host/faces.parquet"):
        url = source if "://" in source else str(tmp_path / source)
        assert image_files(url) is None and files_of_run(url, str(tmp_path / "dst")) is None
    support.finished_run(support.make_run(tmp_path, recogniser="none"))
    assert files_of_run(str(scans), str(tmp_path / "dst")) is None, "the run there is of a dataset, and says so itself"


def test_other_files_and_a_destination_among_them_are_refused(scans: Path, tmp_path: Path) -> None:
    pack(scans, tmp_path / "dst")
    with pytest.raises(UsageError, match=r"whose images are packed in .*use another destination"):
        files_of_run(str(scans / "a"), str(tmp_path / "dst"))
    with pytest.raises(UsageError, match="expected a destination outside"):
        files_of_run(str(scans), str(scans / "restored"))


def test_two_at_once_have_one_winner_and_leave_nothing(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    one, two = files_of_run(str(scans), str(out)), files_of_run(str(scans), str(out))
    assert one is not None and two is not None
    one.pack()
    with pytest.raises(BfrError, match="another that was faster"):
        two.pack()
    assert sorted(packed_ids(out)) == ["1.png", "a/2.png"]
    assert len(list((out / SOURCE).rglob("part-*.parquet"))) == 1


def test_a_packing_that_was_killed_means_nothing_and_is_vacuumed(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    killed = out / SOURCE / "0123456789ab" / "part-00000.parquet"
    support.write_parquet(killed, support.make_rows(5))
    assert pack(scans, out).rows == 2
    restore(f"{out}/{SOURCE}", tmp_path)
    assert sorted(packed_ids(out)) == ["1.png", "a/2.png"]
    assert vacuum_run(str(out))["too_young"] == 1
    os.utime(killed, (1, 1))
    assert [entry["what"] for entry in vacuum_run(str(out))["removed"]] == ["unfinished packing"]
    assert not killed.exists() and sorted(packed_ids(out)) == ["1.png", "a/2.png"] and verify_run(str(out))["ok"]


def test_a_name_that_is_not_text_is_packed(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/Fot\xf3.png")).write_bytes(picture(1))
    assert pack(folder, tmp_path / "dst").rows == 1
    assert pack(folder, tmp_path / "dst").rows == 0
    assert packed_ids(tmp_path / "dst") == ["Fotó.png"]


@pytest.mark.parametrize("attempts", ["ab", "ba"])
def test_of_a_file_that_was_mended_only_the_newer_image_counts(
    scans: Path, tmp_path: Path, attempts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(SimpleNamespace(hex=12 * letter) for letter in attempts)
    monkeypatch.setattr("tasks.pack_pictures.uuid", SimpleNamespace(uuid4=lambda: next(names)))
    (scans / "1.png").write_bytes(picture(1)[:80])
    out, files = tmp_path / "dst", tmp_path / "files"
    pack(scans, out)
    broken = restore(f"{out}/{SOURCE}", tmp_path, max_rejects=0.1)
    assert broken["totals"]["superseded"] == 0 and rejects_too_many(broken)
    export_run(str(out), str(files))
    assert (files / "1.png").read_bytes() == picture(1)[:80]
    (scans / "1.png").write_bytes(picture(1))
    pack(scans, out)
    mended = restore(f"{out}/{SOURCE}", tmp_path, max_rejects=0.1)
    assert (mended["totals"]["rows"], mended["totals"]["rejected"], mended["totals"]["superseded"]) == (3, 1, 1)
    assert mended["superseded_rejects"] == {"undecodable": 1} == mended["rejects"]
    assert (standing_rejects(mended), standing_rows(mended), rejects_too_many(mended)) == ({}, 2, False)
    for folder in (tmp_path / "new", files):  # the second one has the broken file of before
        report = export_run(str(out), str(folder))
        assert {path for path in Store(str(folder)).list() if path.endswith(".png")} == {"1.png", "a/2.png"}
        assert Image.open(folder / "1.png").size == (support.SIDE, support.SIDE)
        assert (report["images"], report["superseded"], report["renamed"]) == (2, 1, [])
    assert export_run(str(out), str(files))["written"] == 0
    earlier = support.read_record(out)
    earlier["totals"].pop("superseded")
    (out / "run.json").write_text(json.dumps({key: earlier[key] for key in earlier if key not in CLOSED_LATER}))
    assert not rejects_too_many(restore(f"{out}/{SOURCE}", tmp_path, max_rejects=0.1)), "finished by an earlier version"
    assert verify_run(str(out))["ok"]


def test_pages_of_a_file_that_was_mended_are_superseded_together(scans: Path, tmp_path: Path) -> None:
    out, pages = tmp_path / "dst", [Image.fromarray(support.portrait(number)) for number in (1, 2)]
    for attempt in range(2):
        pages[attempt].save(scans / "b.tif", save_all=True, append_images=pages[:1])
        pack(scans, out)
        record = restore(f"{out}/{SOURCE}", tmp_path)
    assert (record["totals"]["rows"], record["totals"]["superseded"]) == (6, 2)
    report = export_run(str(out), str(tmp_path / "files"))
    assert (report["images"], report["superseded"], report["renamed"]) == (3, 2, [])


def test_files_whose_dates_alone_have_changed_are_not_packed_again(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    pack(scans, out)
    for name in ("1.png", "a/2.png"):
        os.utime(scans / name, ns=(1, 1))
    (scans / "a" / "2.png").write_bytes(picture(2)[:-1] + b"x")  # as long as before
    files = files_of_run(str(scans), str(out))
    assert files is not None and (list(files.same), list(files.todo)) == (["1.png"], ["a/2.png"])
    assert files.pack().rows == 1
    assert pack(scans, out).rows == 0 and sorted(packed_ids(out)) == ["1.png", "a/2.png", "a/2.png"]
    before = support.snapshot(out)
    again = files_of_run(str(scans), str(out))
    assert again is not None and not again.same and again.pack().rows == 0 and support.snapshot(out) == before


def test_an_archive_whose_date_alone_has_changed_is_the_same(scans: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(scans / "1.png", "1.png")
    pack(tmp_path / "all.zip", tmp_path / "dst")
    os.utime(tmp_path / "all.zip", ns=(1, 1))
    assert pack(tmp_path / "all.zip", tmp_path / "dst").rows == 0


def test_what_earlier_versions_have_packed_is_known_by_its_date(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    pack(scans, out)
    for path in (out / SOURCE).rglob(SUMS):
        path.unlink()
    assert pack(scans, out).rows == 0
    os.utime(scans / "1.png", ns=(1, 1))
    assert pack(scans, out).rows == 1


def test_the_same_files_at_another_place_go_on(scans: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "dst", tmp_path / "elsewhere"
    pack(scans, out)
    shutil.copytree(scans, moved, copy_function=shutil.copyfile)  # with other dates
    (moved / "3.png").write_bytes(picture(3))
    files = files_of_run(str(moved), str(out))
    assert files is not None and (files.moved_from, len(files.same), list(files.todo)) == (str(scans), 2, ["3.png"])
    files.pack()
    (moved / "1.png").write_bytes(picture(4))
    assert pack(moved, out).rows == 1, "that is the place of the run now"
    with pytest.raises(UsageError, match=r"expected .*elsewhere, whose images are packed in .*use another destination"):
        files_of_run(str(scans), str(out))


def test_a_source_that_is_gone_is_no_source_that_has_nothing_new(scans: Path, tmp_path: Path) -> None:
    out, away = tmp_path / "dst", tmp_path / "away"
    pack(scans, out)
    (scans / "1.png").unlink()
    files = files_of_run(str(scans), str(out))
    assert files is not None and (files.gone, len(files.found.files), files.todo) == (1, 1, {})
    scans.rename(away)
    expected = (
        r"expected the 2 files packed before in .*scans, or new ones, found none; is it mounted\? .*/dst/source as"
    )
    with pytest.raises(UsageError, match=expected):
        files_of_run(str(scans), str(out))
    scans.mkdir()
    with pytest.raises(UsageError, match=expected):
        files_of_run(str(scans), str(out))
    (scans / "other.png").write_bytes(picture(5))
    files = files_of_run(str(scans), str(out))
    assert files is not None and (files.gone, list(files.todo)) == (2, ["other.png"]), "an inbox"
    assert files_of_run(f"{out}/{SOURCE}", str(out)) is None, "what is packed is a dataset"


def test_parquet_among_images_is_refused_unless_its_rows_name_them(scans: Path, tmp_path: Path) -> None:
    rows = [{"image": {"bytes": picture(1), "path": "1.png"}, "id": "1.png"}]
    for table in (pa.table({"x": [1]}), pa.Table.from_pylist(rows)):
        pq.write_table(table, scans / "a" / "stray.parquet")
        with pytest.raises(UsageError, match=r"found both \(1\.png, a/stray\.parquet\); move one kind out"):
            files_of_run(str(scans), str(tmp_path / "dst"))
    assert pack(f"{scans}/**/*.png", tmp_path / "dst").rows == 2
    (scans / "a" / "stray.parquet").write_bytes(b"not really")
    with pytest.raises(UsageError, match="found both"):
        files_of_run(str(scans), str(tmp_path / "dst"))
    named = ["a/2.png", "./a/2.png", f"{scans}/a/2.png", f"file://{scans}/a/2.png"]
    for name in named:
        for cell in (name, {"bytes": None, "path": name}):
            pq.write_table(pa.table({"image": [cell]}), scans / "a" / "stray.parquet")
            assert image_files(str(scans)) is None, f"a dataset, whose rows name their images as {name}"


def test_a_dataset_with_other_files_stays_one(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    (tmp_path / "src" / "README.md").write_text("x")
    assert image_files(str(tmp_path / "src")) is None


def test_what_is_left_out_is_recorded_once(scans: Path, tmp_path: Path) -> None:
    out, lists = tmp_path / "dst", f"{tmp_path}/dst/{SOURCE}/*/{LEFT_OUT}"
    (scans / "pipe.png").symlink_to("nowhere.png")
    assert pack(scans, out).left_out == 1
    record = restore(f"{out}/{SOURCE}", tmp_path, max_rejects=1.0)
    assert record["left_out"] == {"files": 1, "names": f"{SOURCE}/*/{LEFT_OUT}"}
    assert "1 files, named with the reasons in" in (out / "report" / "index.html").read_text()
    (scans / "Thumbs.db").write_text("x")
    assert [pack(scans, out).left_out for _ in range(2)] == [2, 2]
    (scans / "3.png").write_bytes(picture(3))
    assert pack(scans, out).left_out == 2
    rows = sorted((row for path in glob(lists) for row in pq.read_table(path).to_pylist()), key=itemgetter("name"))
    assert [(row["name"], row["has_row"]) for row in rows] == [
        ("Thumbs.db", False), ("notes.txt", False), ("pipe.png", True),
    ]  # fmt: skip
    assert rows[1]["why"] == "not an image by its extension" and "expected a file" in rows[2]["why"]
    assert restore(f"{out}/{SOURCE}", tmp_path, max_rejects=1.0)["left_out"]["files"] == 2
    for path in (out / SOURCE).rglob("*.parquet"):
        os.utime(path, (1, 1))
    assert not vacuum_run(str(out))["removed"], "the lists belong to the run"


def test_members_of_an_archive_that_are_left_out_are_recorded(scans: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(scans / "1.png", "1.png")
        archive.writestr("notes.txt", "x")
    assert [pack(tmp_path / "all.zip", tmp_path / "dst").left_out for _ in range(2)] == [1, 1]


def test_an_image_without_an_extension_is_taken(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    for name, data in {"3": picture(3), "a/README": b"BM text", "empty": b""}.items():
        (scans / name).write_bytes(data)
    (scans / "out").symlink_to(tmp_path / "scans.png")
    report = pack(scans, out)
    assert sorted(packed_ids(out)) == ["1.png", "3", "a/2.png"] and report.left_out == 4
    (scans / "4.png").write_bytes(picture(4))
    again = pack(scans, out)
    assert (again.rows, again.left_out, again.skipped) == (1, 4, [])
    restore(f"{out}/{SOURCE}", tmp_path)
    export_run(str(out), str(tmp_path / "files"))
    assert Image.open(tmp_path / "files" / "3").size == (support.SIDE, support.SIDE)
    for name in ("1.png", "a/2.png", "4.png"):
        (scans / name).unlink()
    assert pack(scans, tmp_path / "other").rows == pack_pictures(str(scans), str(tmp_path / "packed")).rows == 1


def test_of_a_file_that_has_changed_a_curated_dataset_has_the_newer_image_alone(scans: Path, tmp_path: Path) -> None:
    out, curated = tmp_path / "dst", tmp_path / "curated"
    for number in (1, 3):
        (scans / "1.png").write_bytes(picture(number))
        pack(scans, out)
        restore(f"{out}/{SOURCE}", tmp_path)
    record = curate_run(CurateRun(source=str(out), destination=str(curated), by="seconds"))
    assert record["counts"] == {"rows": 3, "kept": 2, "dropped": 1}
    (old,) = pq.read_table(curated / "dropped.parquet").to_pylist()
    assert (old["id"], old["reason"]) == ("1.png", "superseded by a newer version of its file")
    assert old["origin_file"].endswith(read_packed(Store(f"{out}/{SOURCE}")).parts[0]), "what was packed first"
    assert sorted(pq.read_table(curated / "data")["id"].to_pylist()) == ["1.png", "a/2.png"]


def test_a_review_lists_the_faces_of_the_newer_image_alone(scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "dst"
    for number in (1, 3):
        (scans / "1.png").write_bytes(picture(number))
        pack(scans, out)
        restore(f"{out}/{SOURCE}", tmp_path)
    run = open_export(str(out))
    listed = [face for _, part in make_index(run, None) for face in part.to_pylist()]
    assert sorted(face["id"] for face in listed) == ["1.png", "a/2.png"]
    (newer,) = (face for face in listed if face["id"] == "1.png")
    assert run.superseded_in(newer["file"]) == [] and sum(len(run.superseded_in(n)) for n in range(2)) == 1
