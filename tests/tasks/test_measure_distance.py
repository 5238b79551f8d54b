"""`bfr fid` on datasets, runs and saved statistics: one number, under its own name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import UsageError
from bfr_models.metrics.extractors import load_extractor
from bfr_models.metrics.frechet import FeatureStatistics, frechet_distance
from tasks.measure_distance import measure_distance
from tests import support

pytest.importorskip("dlib")
NAME = "fd_dlib_resnet_v1"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("sets")
    for name, first in (("a", 0), ("b", 40)):
        support.write_parquet(base / name / "1.parquet", support.make_rows(5, first))
        support.write_parquet(base / name / "2.parquet", support.make_rows(3, first + 5))
    return base / "a", base / "b"


def test_it_is_the_distance_of_all_faces_however_they_are_split(folders: tuple[Path, Path]) -> None:
    extractor = load_extractor("dlib", "pytorch-fid", "cpu")
    whole = [
        FeatureStatistics.from_features(
            extractor.extract([support.portrait(first + i) for i in range(8)]), extractor.source, "all"
        ).gaussian()
        for first in (0, 40)
    ]
    found = measure_distance(*map(str, folders), features="dlib")
    assert found[NAME] == pytest.approx(frechet_distance(*whole).value, rel=1e-9)
    assert found["n"] == [8, 8] and "biased" in found["warning"]
    assert measure_distance(str(folders[0]), str(folders[0]), features="dlib")[NAME] == pytest.approx(0, abs=1e-9)


def test_saved_statistics_stand_for_the_dataset(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = map(str, folders)
    saved = str(tmp_path / "b.npz")
    direct = measure_distance(a, b, features="dlib", save=saved)
    assert measure_distance(a, saved, features="dlib")[NAME] == direct[NAME]
    with np.load(saved) as file:
        np.savez(theirs := io.BytesIO(), mu=file["mu"], sigma=file["sigma"])  # as pytorch-fid writes them
    (tmp_path / "theirs.npz").write_bytes(theirs.getvalue())
    assert measure_distance(a, str(tmp_path / "theirs.npz"), features="dlib")[NAME] == direct[NAME]
    with pytest.raises(UsageError, match="it needs each face"):
        measure_distance(a, saved, features="dlib", kernel=True)


def test_a_run_is_measured_by_its_restored_faces(folders: tuple[Path, Path], tmp_path: Path) -> None:
    run = support.make_run(tmp_path, source=str(folders[0]))
    support.finished_run(run)
    against_itself = measure_distance(run.destination, run.destination, features="dlib", kernel=True)
    assert against_itself[NAME] == pytest.approx(0, abs=1e-9)
    assert against_itself["precision"] == against_itself["recall"] == 1


def test_rows_without_a_picture_are_counted(tmp_path: Path) -> None:
    rows = support.make_rows(4)
    rows[1]["image"] = {"bytes": b"broken", "path": None}
    rows[2]["image"] = {"bytes": None, "path": "elsewhere.png"}
    support.write_parquet(tmp_path / "broken.parquet", rows)
    found = measure_distance(str(tmp_path), str(tmp_path), features="dlib")
    assert (found["skipped"], found["n"]) == ([2, 2], [2, 2])


@pytest.mark.parametrize(("rows", "found"), [([], "0 and 0"), (support.make_rows(1), "1 and 1")])
def test_a_set_of_too_few_faces_is_named(rows: list[dict[str, Any]], found: str, tmp_path: Path) -> None:
    broken = [{"image": {"bytes": b"broken", "path": None}} for _ in rows]
    schema = pa.Table.from_pylist(support.make_rows(1)).schema
    (tmp_path / "few").mkdir()
    pq.write_table(pa.Table.from_pylist(rows + broken, schema), tmp_path / "few" / "a.parquet")
    few = (
        f"expected at least 2 faces in {tmp_path}/few, found {found} rows without an image that decodes; name the right"
    )
    with pytest.raises(UsageError, match=few):
        measure_distance(str(tmp_path / "few"), str(tmp_path / "few"), features="dlib")


@pytest.mark.parametrize("arrays", [None, {"mean": np.zeros(3)}])
def test_of_two_files_the_one_without_statistics_is_named(arrays: dict[str, Any] | None, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    (tmp_path / "b.npz").write_text("no statistics")
    if arrays is not None:
        np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(
        UsageError, match=f"^{tmp_path}/b.npz: expected a .npz with mu, sigma, found .*; .*name another$"
    ):
        measure_distance(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"))


def test_whole_photos_are_refused_by_a_recogniser(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photo = {"image": {"bytes": support.encoded(support.portrait(0)[:40]), "path": None}}
    support.write_parquet(tmp_path / "photos" / "a.parquet", [photo])
    with pytest.raises(UsageError, match=r"expected aligned, square faces .* an image of 96 x 40 px; use `--features"):
        measure_distance(str(tmp_path / "photos"), str(folders[0]), features="dlib")


def test_absent_weights_are_said_with_what_to_do(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BFR_WEIGHTS", "/nowhere")
    with pytest.raises(UsageError, match="bfr weights fetch fid/inception"):
        measure_distance(*map(str, folders), features="inception")
    with pytest.raises(UsageError, match="known: auto, inception, arcface, adaface, dlib"):
        measure_distance(*map(str, folders), features="vgg")


def test_statistics_of_something_else_are_replaced_only_when_asked(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = map(str, folders)
    saved = tmp_path / "b.npz"
    for _ in range(2):
        measure_distance(a, b, features="dlib", save=str(saved))
    before = saved.read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        measure_distance(b, a, features="dlib", save=str(saved))
    assert saved.read_bytes() == before
    measure_distance(b, a, features="dlib", save=str(saved), overwrite=True)
    assert saved.read_bytes() != before
    saved.write_bytes(b"a diary")
    with pytest.raises(UsageError, match="--overwrite"):
        measure_distance(a, b, features="dlib", save=str(saved))


def test_statistics_have_no_name_that_they_do_not_carry(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = map(str, folders)
    saved = str(tmp_path / "b.npz")
    direct = measure_distance(a, b, features="dlib", save=saved)
    with np.load(saved) as file:
        np.savez(tmp_path / "theirs.npz", mu=file["mu"], sigma=file["sigma"])
    theirs = str(tmp_path / "theirs.npz")
    for one, other in ((theirs, theirs), (saved, theirs), (a, theirs)):
        found = measure_distance(one, other)
        assert "fd_unknown" in found and NAME not in found and "fid" not in found
        assert found["features"]["sha256"] is None
    assert measure_distance(saved, saved)[NAME] == pytest.approx(0, abs=1e-9)
    assert measure_distance(theirs, theirs, features="dlib")[NAME] == pytest.approx(0, abs=1e-9)
    assert direct[NAME] > 0
