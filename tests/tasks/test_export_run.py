"""`bfr export`: every file back, in its tree, under its name; what nothing changed in byte for byte."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bfr_models.errors import UsageError
from tasks.export_run import export_run
from tasks.images.codec import decode
from tasks.pack_pictures import pack_pictures
from tasks.storage.store import Store
from tests import support
from tests.tasks.images.samples import opened
from tests.tasks.images.test_tiff_pages import multipage
from tests.tiled_photos import TILE, photo

FACE, NO_FACE = photo(1, None), photo(None, None)


def files() -> dict[str, bytes]:
    page, empty = Image.fromarray(FACE), Image.fromarray(NO_FACE)
    return {
        "1931/Fête #1 100%.jpg": support.encoded(FACE, "jpeg", quality=80),
        "1931/a/b/no face.jpg": support.encoded(NO_FACE, "jpeg"),
        "1931/a/b/" + "n" * 200 + ".png": support.encoded(FACE),
        "broken.jpg": support.encoded(FACE, "jpeg")[:200],
        "pages.tif": multipage([empty, page, empty, page], compression="tiff_lzw"),
        "same pages.tif": multipage([empty, empty], compression="tiff_lzw"),
        "still.gif": support.encoded(FACE, "gif"),
        "still.jp2": bytes(imagecodecs.jpeg2k_encode(FACE, level=0, codecformat="jp2", reversible=True)),
    }


def tree(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(".bfr-export/")}


def record_of(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


@pytest.fixture
def run(mirror: str, tmp_path: Path) -> Path:
    """A run over `files`; pages of a TIFF are in several shards."""
    for name, data in files().items():
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).write_bytes(data)
    pack_pictures(str(tmp_path / "scans"), str(tmp_path / "src"), row_group_rows=3)
    support.finished_run(support.make_run(tmp_path, mirror, input="photos", shard_rows=3, max_rejects=1.0))
    return tmp_path / "dst"


def test_the_tree_comes_back_and_only_faces_differ(run: Path, tmp_path: Path) -> None:
    out, before = tmp_path / "out", files()
    report = export_run(str(run), str(out))
    found = tree(out)
    assert {name for name in found if not name.endswith(".json")} == {*before, "still.gif.png", "still.jp2.png"}
    assert {name for name in found if name.endswith(".json")} == {f"{name}.json" for name in before}
    assert (report["changed"], report["unchanged"], report["rejected"], report["missing"]) == (5, 2, 1, 0)
    unchanged = ["1931/a/b/no face.jpg", "broken.jpg", "same pages.tif", "still.gif", "still.jp2"]
    assert {name for name in before if found[name] == before[name]} == set(unchanged)
    for path in ("1931/Fête #1 100%.jpg", "pages.tif"):
        assert opened(found[path]).format == opened(before[path]).format
    with Image.open(out / "pages.tif") as tiff:
        for page, (same, wanted) in enumerate([(True, NO_FACE), (False, FACE), (True, NO_FACE), (False, FACE)]):
            tiff.seek(page)
            assert np.array_equal(np.asarray(tiff), wanted) == same, page
    restored = support.restored_images(run)
    name = "1931/a/b/" + "n" * 200 + ".png"
    assert np.array_equal(decode(found[name]).pixels, decode(restored[name]).pixels)
    for name in ("still.gif", "still.jp2"):
        assert np.array_equal(decode(found[f"{name}.png"]).pixels, decode(restored[name]).pixels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dst", "out", "scans", "src"]


def test_the_record_beside_a_photo_tells_of_its_faces(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(str(run), str(out))
    told = record_of(out, "pages.tif")
    assert (told["state"], told["name"]) == ("changed", "pages.tif")
    assert [row["id"] for row in told["rows"]] == ["pages.tif", *(f"pages.tif#page={page}" for page in (2, 3, 4))]
    (face,) = told["rows"][1]["faces"]
    assert face["outcome"] == "restored" and len(face["box"]) == 4 and "identity_similarity" in told["rows"][1]
    assert told["files"] == [
        {"path": "pages.tif", "sha256": hashlib.sha256((out / "pages.tif").read_bytes()).hexdigest()}
    ]
    assert record_of(out, "broken.jpg")["rows"][0]["error"] == "undecodable"
    assert record_of(out, "still.gif")["notes"] and [one["path"] for one in record_of(out, "still.gif")["files"]] == [
        "still.gif", "still.gif.png",
    ]  # fmt: skip
    assert str(tmp_path) not in "".join(path.read_text() for path in out.rglob("*.json")), "it travels"


def test_a_second_call_writes_what_is_missing(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export_run(str(run), str(out))
    before = tree(out)
    again = export_run(str(run), str(out))
    assert again["written"] == 0 and again["images"] == first["images"] and again["changed"] == first["changed"]
    (out / "pages.tif").unlink()
    (out / "broken.jpg").unlink()
    (out / "still.gif").write_bytes(b"edited by hand meanwhile")
    assert export_run(str(run), str(out))["written"] == 4
    assert tree(out) == before | {"still.gif": b"edited by hand meanwhile"}


def test_a_call_that_was_stopped_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    export_run(str(run), str(whole))
    write, left = Store.write, [7]

    def fails(self: Store, path: str, data: bytes, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        write(self, path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", fails)
        with pytest.raises(OSError, match="No space"):
            export_run(str(run), str(out))
    export_run(str(run), str(out))
    assert tree(out) == tree(whole)


def test_only_what_changed_under_another_name(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = export_run(str(run), str(out), only="changed", suffix="_new")
    assert report["written"] == len(tree(out)) == 12
    assert {
        "1931/Fête #1 100%_new.jpg",
        "pages_new.tif",
        "still_new.gif",
        "still_new.gif.png",
        "still_new.jp2.png",
    } <= tree(out).keys()
    with pytest.raises(UsageError, match="part of a file name"):
        export_run(str(run), str(out), suffix="../x")


def test_a_folder_with_something_else_is_refused(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"found mine.txt and 0 other files.*--overwrite"):
        export_run(str(run), str(out))
    export_run(str(run), str(out), overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="found another export"):
        export_run(str(run), str(out), only="changed")
    export_run(str(run), str(out), only="changed", overwrite=True)
    with pytest.raises(UsageError, match="outside of the run"):
        export_run(str(run), str(run / "files"))
    with pytest.raises(UsageError, match="expected a run"):
        export_run(str(tmp_path / "scans"), str(tmp_path / "other"))


def test_without_the_source_it_says_so_and_goes_on_when_it_is_back(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.move(tmp_path / "src", tmp_path / "away")
    report = export_run(str(run), str(out))
    assert report["missing"] == 7 and report["rejected"] == 1, "rejected rows have their own bytes"
    assert "has changed or is gone" in report["not_exported"][0]["why"]
    assert set(tree(out)) == {"broken.jpg", "broken.jpg.json"}
    shutil.move(tmp_path / "away", tmp_path / "src")
    assert export_run(str(run), str(out))["missing"] == 0
    assert {*files()} <= tree(out).keys()


HOSTILE = ["../../out of it.png", "/etc/x.png", "nul", "a.png", "a.png", None, "a.png/b.png", "b\0\n.png", "C:/d.png"]


def test_hostile_names_stay_inside_and_apart(tmp_path: Path) -> None:
    rows = support.make_rows(len(HOSTILE))
    for number, (row, path) in enumerate(zip(rows, HOSTILE, strict=True)):
        row |= {"id": f"row {number}", "image": {"bytes": row["image"]["bytes"], "path": path}}
    support.write_parquet(tmp_path / "in" / "src" / "a.parquet", rows)
    run = support.make_run(tmp_path / "in", recogniser="none", size="network")
    support.finished_run(run)
    report = export_run(run.destination, str(tmp_path / "in" / "out"))
    found = tree(tmp_path / "in" / "out")
    names = {
        "out of it.png", "etc/x.png", "_nul", "a.png", "a~2.png", "row 5.png", "a.png~2/b.png", "b__.png", "d.png",
    }  # fmt: skip
    assert found.keys() == names | {f"{name}.json" for name in names}
    assert {one["name"]: one["as"] for one in report["renamed"]}["/etc/x.png"] == "etc/x.png"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert report["changed"] == len(HOSTILE), "at the size that the run has written"


def test_the_input_that_a_run_has_kept_will_do(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(3))
    run = support.make_run(tmp_path, recogniser="none", keep_input=True)
    support.finished_run(run)
    shutil.rmtree(tmp_path / "src")
    assert export_run(run.destination, str(tmp_path / "out"))["missing"] == 0
    assert {"0.png", "1.png", "2.png"} <= tree(tmp_path / "out").keys()


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_any_store(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    run = support.make_run(tmp_path, recogniser="none")
    support.finished_run(run)
    folder = "memory://exported" if kind == "memory" else f"{request.getfixturevalue('bucket')}/exported"
    assert export_run(run.destination, folder)["written"] == 4
    assert export_run(run.destination, folder)["written"] == 0
    assert {"0.png", "0.png.json", "1.png"} <= set(Store(folder).list())


def test_a_dataset_that_older_versions_packed_page_by_page(mirror: str, tmp_path: Path) -> None:
    whole = files()["pages.tif"]
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "pages.tif").write_bytes(whole)
    pack_pictures(str(folder), str(tmp_path / "src"))
    part = tmp_path / "src" / "part-00000.parquet"
    from tasks.images.tiff_pages import split_pages

    rows = pq.read_table(part).to_pylist()
    for row, page in zip(rows, split_pages(whole), strict=True):
        row["image"]["bytes"] = page
    support.write_parquet(part, rows)
    support.finished_run(support.make_run(tmp_path, mirror, input="photos"))
    export_run(str(tmp_path / "dst"), str(tmp_path / "out"))
    with Image.open(tmp_path / "out" / "pages.tif") as tiff:
        assert tiff.n_frames == 4
        assert np.array_equal(np.asarray(tiff), NO_FACE)


def test_what_a_lossy_run_lost_outside_the_faces_is_left_out(mirror: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (*FACE.shape[:2], 1), np.uint8).repeat(3, axis=2)
    before = np.concatenate([FACE, noise // 2], axis=0)
    before[len(FACE) :, :, 0] = 0  # no faces to `TileDetector`
    rows = [{"id": "a.png", "image": {"bytes": support.encoded(before), "path": "a.png"}}]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    settings = {"input": "photos", "detector": "retinaface", "format": "webp", "quality": 60}
    support.finished_run(support.make_run(tmp_path, mirror, **settings))
    restored = support.decoded(support.restored_images(tmp_path / "dst")["a.png"])
    assert export_run(str(tmp_path / "dst"), str(tmp_path / "out"))["changed"] == 1
    after = support.decoded((tmp_path / "out" / "a.png").read_bytes())
    assert (restored != before)[:, TILE:].any() and np.array_equal(after[:, TILE:], before[:, TILE:])
    face = (slice(10, TILE - 10), slice(10, TILE - 10))
    assert np.array_equal(after[face], restored[face])


def test_no_secret_of_an_address_is_in_a_record(tmp_path: Path) -> None:
    rows = support.make_rows(1)
    rows[0]["image"]["path"] = "https://user:hush@host/a%20b.png?signature=hush"
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = support.make_run(tmp_path, recogniser="none")
    support.finished_run(run)
    report = export_run(run.destination, str(tmp_path / "out"))
    assert set(tree(tmp_path / "out")) == {"a b.png", "a b.png.json"}
    assert "hush" not in json.dumps(report) and "hush" not in (tmp_path / "out" / "a b.png.json").read_text()


def test_as_webdataset_each_image_and_its_record_are_one_sample(run: Path, tmp_path: Path) -> None:
    """By the key of webdataset's own `base_plus_ext`: the path up to the first dot of the file name."""
    out = tmp_path / "tars"
    made = export_run(str(run), str(out), webdataset=True)
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                match = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", member.name)
                assert match is not None, member.name
                samples.setdefault(match[1], {})[match[2]] = tar.extractfile(member).read()  # type: ignore[union-attr]
    records = {key: json.loads(sample["json"]) for key, sample in samples.items()}
    assert {record["name"] for record in records.values()} == set(files()) and len(samples) == made["images"]
    key = "1931/Fête #1 100%"
    assert samples[key].keys() == {"jpg", "json"} and records[key]["state"] == "changed"
    assert samples["1931/a/b/no face"]["jpg"] == files()["1931/a/b/no face.jpg"]  # byte for byte
    told = records[key]["files"]
    assert told == [{"path": f"{key}.jpg", "sha256": hashlib.sha256(samples[key]["jpg"]).hexdigest()}]
    assert samples["still"].keys() != samples["still~2"].keys()  # still.gif and still.jp2 are two samples


def test_tar_files_are_resumed_and_keep_their_keys(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "tars"
    export_run(str(run), str(out), webdataset=True)
    before = {path.name: path.read_bytes() for path in out.glob("*.tar")}
    assert export_run(str(run), str(out), webdataset=True)["written"] == 0
    gone = sorted(before)[-1]
    (out / gone).unlink()
    assert export_run(str(run), str(out), webdataset=True)["written"] == 1
    assert {path.name: path.read_bytes() for path in out.glob("*.tar")} == before
    with pytest.raises(UsageError, match="found another export"):
        export_run(str(run), str(out))
