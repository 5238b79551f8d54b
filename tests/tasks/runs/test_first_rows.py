"""What a dataset is taken for, by its first rows, and what is refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bfr_models.errors import UsageError
from bfr_models.pixels import Uint8Image
from tasks.config.restore import RestoreRun
from tasks.runs import prepare
from tasks.runs.first_rows import look
from tasks.runs.prepare import FACES_ALONE, decide_input, prepare_run
from tests import support
from tests.real_photos import aligned, photo

pytest.importorskip("dlib")


def source(folder: Path, *pictures: Uint8Image | bytes) -> str:
    rows = [
        {"image": {"bytes": one if isinstance(one, bytes) else support.encoded(one, "jpeg"), "path": None}}
        for one in pictures
    ]
    return str(support.write_parquet(folder / "src" / "a.parquet", rows))


def asked(folder: Path, kind: str = "auto") -> RestoreRun:
    return support.make_run(folder, input=kind, recogniser="none", lpips="none", fid="none")


def square(picture: Uint8Image) -> Uint8Image:
    side = min(picture.shape[:2])
    return picture[:side, :side]


def test_aligned_faces_and_squares_of_one_size_are_faces(tmp_path: Path) -> None:
    faces = look(source(tmp_path / "1", aligned(0), aligned(1)), "image")
    assert (faces.kind, faces.is_plainly_photos) == ("faces", False)
    assert "at the place of an aligned face in 2" in str(faces)
    squares = look(source(tmp_path / "2", b"broken", *(support.portrait(n) for n in range(3))), "image")
    assert (squares.kind, squares.is_plainly_photos) == ("faces", False)
    mixed = look(source(tmp_path / "3", aligned(0), support.portrait(1)), "image")
    assert mixed.kind == "faces"  # one may be too damaged to be found


def test_what_is_not_square_or_has_its_faces_elsewhere_is_photos(tmp_path: Path) -> None:
    photos = look(source(tmp_path / "1", photo(0), photo(1, 300)[:, :250]), "image")
    assert (photos.kind, photos.is_plainly_photos) == ("photos", True)
    elsewhere = look(source(tmp_path / "2", square(photo(0)), square(photo(1, 300))), "image")
    assert (elsewhere.kind, elsewhere.is_plainly_photos) == ("photos", True)
    sizes = look(source(tmp_path / "3", support.portrait(1, 96), support.portrait(2, 128)), "image")
    assert (sizes.kind, sizes.is_plainly_photos) == ("photos", False)
    almost = look(source(tmp_path / "4", aligned(0), aligned(1)[:, :90]), "image")
    assert (almost.kind, almost.is_plainly_photos) == ("photos", False)


def test_photos_are_refused_as_faces_with_the_command_to_use_and_nothing_is_written(tmp_path: Path) -> None:
    source(tmp_path, photo(0), photo(0))
    with pytest.raises(UsageError, match=r"bfr restore \S+src \S+dst --method passthrough --input photos"):
        prepare_run(asked(tmp_path, "faces"))
    assert not (tmp_path / "dst").exists()
    with pytest.raises(
        UsageError, match=r"bfr evaluate compares methods on aligned faces alone: cut them out .* first$"
    ):
        prepare_run(asked(tmp_path, "faces"), FACES_ALONE)
    assert prepare_run(asked(tmp_path, "photos")).run.input == "photos"


def test_a_run_keeps_what_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path, photo(0), photo(0))
    run, said = decide_input(asked(tmp_path))
    assert run.input == "photos" and said.endswith("if that is wrong: --input faces")
    record = support.finished_run(asked(tmp_path))
    assert record["arguments"]["input"] == "photos"
    monkeypatch.setattr(prepare, "look", lambda *_: pytest.fail("the source was looked at again"))
    assert decide_input(asked(tmp_path))[0].input == "photos"
    (tmp_path / "dst" / "plan" / "spec.json").unlink()
    assert decide_input(asked(tmp_path))[0].input == "photos"  # the plan says it, too


def test_ground_truth_and_masks_are_those_of_faces(tmp_path: Path) -> None:
    assert RestoreRun(source="s", destination="d", method="m", gt_column="gt").input == "faces"
    assert RestoreRun(source="s", destination="d", method="m", mask_column="m", task="inpaint").input == "faces"
