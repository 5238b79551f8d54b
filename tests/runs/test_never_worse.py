"""Judged runs: a face is restored where that is expected to gain, and else comes out as it went in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bfr_models.errors import BfrError, UsageError
from bfr_models.faces.align import similarity, warp
from bfr_models.faces.paste import paste
from bfr_models.faces.template import FFHQ_5, at_size
from bfr_models.faces.types import DetectedFace
from bfr_models.judge.decision import JUDGE, KINDS
from bfr_models.judge.network import JudgeNetwork
from bfr_models.judge.verdict import Verdict
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8
from bfr_models.registry import resolve_method
from bfr_models.types import NetworkChoice
from bfr_models.weights.files import find_weight
from bfr_models.weights.tensors import parameters_of, save_weights
from tasks.config.care import Care
from tasks.config.resolve import resolve_run
from tasks.estimate_run import estimate_run
from tasks.explain_row import explain_row
from tasks.repair_run import repair_run
from tasks.runs.outcomes import written_words
from tasks.runs.spec import as_begun, settings_digest
from tasks.verify_run import verify_run
from tasks.worker.decide import load_decide
from tests import support
from tests.faulty_methods import SIZE
from tests.judges import BAD, CURVE, GOOD, judge_runs
from tests.tiled_photos import TILE, TileDetector, find_tiles, photo

AS_BEFORE = {"max_harm": 1.0, "size": "network", "grain": "clean"}


@pytest.fixture
def method(faulty: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a method that mirrors faces, at 96 px."""
    support.use_mean_colours(monkeypatch)
    find_tiles(monkeypatch)
    return faulty


def run_over(
    folder: Path, pictures: list[Uint8Image], method: str, **settings: Any
) -> tuple[dict[str, Any], list[Any]]:
    """(run.json, the data rows) of a run over pictures with the ids 0, 1, ..."""
    rows = [
        {"id": str(i), "image": {"bytes": support.encoded(pixels), "path": None}} for i, pixels in enumerate(pictures)
    ]
    support.write_parquet(folder / "src" / "a.parquet", rows)
    record, data = support.restored(folder, method, **settings)
    return record, data.to_pylist()


def written(row: dict[str, Any]) -> Uint8Image:
    return support.decoded(row["restored"]["bytes"])


def is_dark(face: Uint8Image, candidate: Uint8Image) -> Verdict:
    return GOOD if face.mean() < 60 else BAD


def test_what_would_not_gain_comes_out_as_it_went_in_and_the_record_says_why(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_runs(monkeypatch, is_dark)
    dark, light = support.portrait(1, 160) // 3, support.portrait(2, 200)
    record, (restored, kept) = run_over(tmp_path, [dark, light], method)
    assert restored["faces"][0]["outcome"] == "restored" and written(restored).shape == dark.shape
    assert not np.array_equal(written(restored), dark)
    (face,) = kept["faces"]
    np.testing.assert_array_equal(written(kept), light)
    assert face["outcome"] == "kept_original: too large for 96 px" and face["side"] == 200
    assert (face["gain"], face["gain_spread"], face["harm"]) == pytest.approx((-0.12, 0.08, 0.61))
    assert kept["identity_similarity"] == 1
    assert face["sharpness"] == pytest.approx(face["sharpness_input"], rel=1e-6) and face["sharpness"] > 0  # float32
    assert record["outcomes"] == {"restored": 1, "kept_original": 1}
    assert record["totals"]["restored"] == 2 and record["totals"]["changed"] == 1
    assert written_words(record["totals"]) == "2 written (1 restored, 1 kept as they were)"
    assert written_words({"restored": 1200}) == "1,200 written"  # of an earlier version
    assert record["care"]["judge"] == {"name": "judge", "sha256": "1" * 64} and record["care"]["max_harm"] == 0.02
    (explained,) = explain_row(str(tmp_path / "dst"), "1")
    assert explained["faces"][0]["harm"] == pytest.approx(0.61)
    assert verify_run(str(tmp_path / "dst"))["ok"]
    assert "1 kept original" in (tmp_path / "dst" / "report" / "index.html").read_text()
    assert any("of the faces are larger than only can draw (96 px" in warning for warning in record["warnings"])


class OneFace(TileDetector):
    """Finds one face, as large as the photo."""

    def detect(self, image: Uint8Image) -> list[DetectedFace]:
        side = len(image)
        return [DetectedFace((0, 0, side, side), at_size(FFHQ_5, side), 0.9)]


@pytest.mark.parametrize("framing", ["faces", "photos"])
def test_a_corrected_face_is_half_way_between_the_inputs_and_the_networks(
    framing: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_stripes(face: Uint8Image, candidate: Uint8Image) -> Verdict:
        return GOOD if np.abs(np.diff(candidate[:, 40:80].astype(int), axis=0)).mean() > 10 else BAD

    judge_runs(monkeypatch, has_stripes)
    monkeypatch.setattr("tasks.worker.restore_rows.load_detector", lambda *_: OneFace())
    before = np.full((384, 384, 3), 120, np.uint8)
    before[::2, :192] += 40  # of which a face of 96 px has the mean alone, and the method mirrors that
    _, (row,) = run_over(tmp_path, [before], method, input=framing, grain="clean")
    assert row["faces"][0]["outcome"] == "corrected"
    after = written(row).astype(int)[60:-60, 60:-60]
    network = 2 * after - before[60:-60, 60:-60]
    assert np.abs(np.diff(network, axis=0)).max() <= 4  # rounded twice
    assert network[:, :100].mean() < 125 and network[:, -100:].mean() > 135


@pytest.mark.parametrize("grain", ["keep", "clean"])
def test_a_photo_whose_faces_are_all_kept_is_the_input_pixel_by_pixel(
    grain: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_runs(monkeypatch, lambda face, candidate: BAD)
    before = photo(1, 2, None, 4)
    record, (row,) = run_over(tmp_path, [before], method, input="photos", grain=grain)
    np.testing.assert_array_equal(written(row), before)
    assert record["outcomes"] == {"kept_original": 3} and row["identity_similarity"] == 1


def test_of_a_photo_only_the_faces_that_gain_change(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = support.portrait(1, TILE)
    judge_runs(monkeypatch, lambda face, candidate: GOOD if abs(face.mean() - first.mean()) < 1 else BAD)
    before = photo(1, 7, 25)
    _, (row,) = run_over(tmp_path, [before], method, input="photos")
    assert [face["outcome"].partition(" ")[0] for face in row["faces"]] == ["restored", *["kept_original:"] * 2]
    after = written(row)
    np.testing.assert_array_equal(after[:, TILE:], before[:, TILE:])
    assert (after[:, :TILE] != before[:, :TILE]).any()


def test_unjudged_faces_and_photos_are_what_they_always_were(method: str, tmp_path: Path) -> None:
    face, scene = support.portrait(3, 131), photo(1, None, 3)
    _, (row,) = run_over(tmp_path / "faces", [face], method, **AS_BEFORE)
    np.testing.assert_array_equal(written(row), to_uint8(resize(to_tensor(face)[None], SIZE)[0].flip(-1)))
    _, (row,) = run_over(tmp_path / "photos", [scene], method, input="photos", max_harm=1)
    matrices = [similarity(at_size(FFHQ_5, TILE) + np.array([x, 0]), at_size(FFHQ_5, SIZE)) for x in (0, 2 * TILE)]
    mirrored = [(np.ascontiguousarray(warp(scene, matrix, SIZE)[:, ::-1]), matrix, 1.0) for matrix in matrices]
    np.testing.assert_array_equal(written(row), paste(scene, mirrored))
    assert [face["harm"] for face in row["faces"]] == [None, None]


def test_a_face_that_the_method_has_not_changed_is_not_resampled(tmp_path: Path) -> None:
    face = support.portrait(1, 200)
    record, (row,) = run_over(tmp_path, [face], "passthrough", recogniser="none")
    np.testing.assert_array_equal(written(row), face)
    assert not any("judge" in warning for warning in record["warnings"])


@pytest.mark.parametrize(
    ("settings", "is_calibrated"),
    [
        ({}, True),
        ({"options": {"precision": "bf16"}}, True),
        ({"options": {"precision": "auto"}}, True),
        ({"options": {"steps": 2}}, False),
        ({"effort": "draft"}, False),
    ],
)
def test_other_options_than_the_preset_s_are_judged_with_a_warning(
    settings: dict[str, Any], is_calibrated: bool, tmp_path: Path
) -> None:
    care = resolve_run(support.make_run(tmp_path, "difface", **settings)).care
    assert care.judge is not None
    assert (
        care.warning is None if is_calibrated else "was calibrated with the own options of difface" in str(care.warning)
    )


def test_networks_that_no_judge_knows_replace_every_face_with_a_warning(method: str, tmp_path: Path) -> None:
    record, (row,) = run_over(tmp_path, [support.portrait(1)], method)
    assert row["faces"][0]["outcome"] == "restored" and record["care"]["max_harm"] == 1
    assert any("no judge here knows the networks of faulty only" in warning for warning in record["warnings"])
    asked = support.make_run(tmp_path, method, max_harm=0.02)
    with pytest.raises(UsageError, match=r"expected a judge for --max-harm 0\.02, found none: no judge here knows"):
        resolve_run(asked)
    plan = estimate_run(resolve_run(support.make_run(tmp_path, method, destination=str(tmp_path / "new"))))
    assert "no judge here knows" in plan["warnings"][0]
    assert resolve_run(support.make_run(tmp_path, max_harm=0.02)).care.judge is None  # passthrough changes nothing


def test_another_judge_or_limit_does_not_mix_with_a_run(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_runs(monkeypatch, is_dark)
    run_over(tmp_path, [support.portrait(1)], method)
    support.check_run(support.make_run(tmp_path, method, max_harm=0.02, size="input", grain="keep"))
    for change, named in (
        ({"max_harm": 0.05}, "max_harm: expected 0.02, found 0.05"),
        ({"min_gain": 0.1}, "min_gain: expected 0.02, found 0.1"),
        ({"grain": "clean"}, 'grain: expected "keep", found "clean"'),
        ({"size": "network"}, 'size: expected "input", found "network"'),
        ({"max_harm": 1}, "judge"),
    ):
        with pytest.raises(UsageError) as refused:
            support.check_run(support.make_run(tmp_path, method, **change))
        assert named in str(refused.value)
    judge_runs(monkeypatch, is_dark, NetworkChoice("judge", "2" * 64))
    with pytest.raises(UsageError, match=r"judge\.sha256: expected .1111.*found .2222"):
        support.check_run(support.make_run(tmp_path, method))


def test_a_run_from_before_faces_were_judged_is_finished_and_goes_on_as_it_was(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_over(tmp_path, [support.portrait(1, 131)], method, **AS_BEFORE)
    spec = tmp_path / "dst" / "plan" / "spec.json"
    settings = json.loads(spec.read_text())
    old = {
        key: value for key, value in settings.items() if key not in ("judge", "max_harm", "min_gain", "size", "grain")
    }
    spec.write_text(json.dumps(old))
    assert settings_digest(old) == settings_digest(settings)
    judge_runs(monkeypatch, is_dark)
    run = support.make_run(tmp_path, method)
    before = support.snapshot(tmp_path / "dst")
    assert support.finished_run(run)["totals"]["restored"] == 1
    assert support.snapshot(tmp_path / "dst") == before
    (tmp_path / "dst" / "manifest.parquet").unlink()
    repair = repair_run(str(tmp_path / "dst"))
    assert repair.resolved is not None and repair.resolved.care.max_harm == 1
    support.write_parquet(tmp_path / "src" / "b.parquet", support.make_rows(1, first=4, side=131))
    assert support.finished_run(run)["totals"]["restored"] == 2
    assert {written(row).shape for row in support.read_table(tmp_path / "dst" / "data").to_pylist()} == {(96, 96, 3)}
    with pytest.raises(UsageError, match="holds a run with other settings"):
        support.check_run(as_begun(run.model_copy(update={"max_harm": 0.02})))


@pytest.fixture
def judge_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge of the networks of `difface`: the package's, or one that has learned nothing."""
    if find_weight(JUDGE) is None:
        monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path / "weights"))
        networks = {weight["file"]: weight["sha256"] for weight in resolve_method("difface").weights.values()}
        card = {"networks": networks, "harm_curve": dict.fromkeys(KINDS, CURVE)}
        card["calibration"] = {kind: [[0, 0], [1, 1]] for kind in KINDS}
        save_weights(parameters_of(JudgeNetwork()), card, tmp_path / "weights" / f"{JUDGE}.safetensors")


@pytest.mark.usefixtures("judge_file")
def test_a_real_judge_judges_the_networks_that_it_knows_and_no_other_takes_its_place(tmp_path: Path) -> None:
    pictures = [support.portrait(1, 64), support.portrait(2, 200)]
    record, rows = run_over(tmp_path, pictures, "estimator", recogniser="none")
    assert record["care"]["judge"]["name"] == JUDGE and not any("judge" in one for one in record["warnings"])
    for row, before in zip(rows, pictures, strict=True):
        (face,) = row["faces"]
        assert 0 <= face["harm"] <= 1 and face["gain_spread"] > 0 and written(row).shape == before.shape
        if face["outcome"].startswith("kept_original"):
            np.testing.assert_array_equal(written(row), before)
    with pytest.raises(BfrError, match="every machine needs the same file"):
        load_decide(Care(NetworkChoice(JUDGE, "0" * 64)))


def test_identity_is_still_required_of_what_would_be_written(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_runs(monkeypatch, lambda face, candidate: GOOD)
    lopsided = np.full((96, 96, 3), 120, np.uint8)
    lopsided[:, :48] = (250, 10, 10)
    _, (row,) = run_over(tmp_path, [lopsided], method, min_identity=0.9)
    np.testing.assert_array_equal(written(row), lopsided)
    assert row["faces"][0]["outcome"] == "kept_original: identity below 0.9" and row["identity_similarity"] < 0.9
    assert row["faces"][0]["gain"] == pytest.approx(GOOD.gain)


def test_a_judge_that_fails_costs_the_face_and_no_other(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(face: Uint8Image, candidate: Uint8Image) -> Verdict:
        if face[0, 0, 0] == support.portrait(2)[0, 0, 0]:
            raise RuntimeError("out of its depth")
        return GOOD

    judge_runs(monkeypatch, says)
    record, rows = run_over(tmp_path, [support.portrait(1), support.portrait(2)], method)
    assert [row["id"] for row in rows] == ["0"] and record["rejects"] == {"judge_failed": 1}
