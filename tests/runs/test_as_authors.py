"""Faces as DifFace's authors write them: what a run has to do to give their pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bfr_models.errors import UsageError
from bfr_models.pixels import Uint8Image, to_tensor, to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.types import FaceBatch
from tasks.config.care import choose_care
from tasks.config.evaluate import EvaluateRun
from tasks.config.reprocess import ReprocessRun
from tasks.runs.redo import _KEPT
from tests import support
from tests.faulty_methods import SIZE
from tests.judges import BAD, judge_runs
from tests.tiled_photos import find_tiles, photo


@pytest.fixture
def method(faulty: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a method that mirrors faces, at 96 px."""
    support.use_mean_colours(monkeypatch)
    find_tiles(monkeypatch)
    return faulty


def run_over(folder: Path, pictures: list[Uint8Image], method: str, **settings: Any) -> list[dict[str, Any]]:
    rows = [
        {"id": str(i), "image": {"bytes": support.encoded(pixels), "path": None}} for i, pixels in enumerate(pictures)
    ]
    support.write_parquet(folder / "src" / "a.parquet", rows)
    return support.restored(folder, method, **settings)[1].to_pylist()


def there_and_back(image: Uint8Image) -> Uint8Image:
    """The authors' procedure around a network that mirrors: bicubic to its size, clipped, bicubic back, clipped, and
    rounded only then. In [0, 1], as theirs."""
    height, width = image.shape[:2]
    y = torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255
    inside = F.interpolate(y, (SIZE, SIZE), mode="bicubic", antialias=True).flip(-1).clamp(0, 1)
    back = F.interpolate(inside, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
    return (back[0] * 255).round().byte().permute(1, 2, 0).numpy()


class TestResizeBack:
    def test_faces_come_back_at_their_own_sizes_resized_before_they_are_rounded(
        self, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judge_runs(monkeypatch, lambda face, candidate: BAD)  # nobody is asked
        shapes = [(200, 200), (40, 40), (SIZE, SIZE), (131, 131), (61, 150)]
        edges = [
            np.where(support.portrait(n, 200)[:height, :width] > 110, 255, 0).astype(np.uint8)
            for n, (height, width) in enumerate(shapes)
        ]
        rows = run_over(tmp_path, edges, method, resize_back=True)
        assert [(row["height"], row["width"]) for row in rows] == shapes
        for row, before in zip(rows, edges, strict=True):
            after, expected = support.decoded(row["restored"]["bytes"]), there_and_back(before)
            assert row["faces"][0]["outcome"] == "restored"
            assert np.abs(after.astype(int) - expected).max() <= 1  # float32 and float64 round a tie apart
            assert (after != expected).mean() < 1e-3

    def test_a_grey_face_stays_grey(self, method: str, tmp_path: Path) -> None:
        grey = support.portrait(2, 130)[:, :, 0]
        (row,) = run_over(tmp_path, [grey], method, resize_back=True)
        after = support.decoded(row["restored"]["bytes"])
        np.testing.assert_allclose(after[:, :, 0], there_and_back(np.repeat(grey[..., None], 3, 2))[:, :, 0], atol=1)

    def test_a_face_that_loses_its_identity_keeps_its_pixels(self, method: str, tmp_path: Path) -> None:
        before = support.portrait(1, 200)
        before[:, :100] //= 2
        (row,) = run_over(tmp_path, [before], method, resize_back=True, recogniser="dlib", min_identity=1)
        assert row["faces"][0]["outcome"].startswith("kept_original: identity below")
        np.testing.assert_array_equal(support.decoded(row["restored"]["bytes"]), before)

    def test_it_is_another_run_and_those_without_it_are_what_they_were(self, method: str, tmp_path: Path) -> None:
        run_over(tmp_path, [support.portrait(1, 131)], method, size="input", max_harm=1)
        with pytest.raises(UsageError, match="resize_back: expected null, found true"):
            support.check_run(support.make_run(tmp_path, method, resize_back=True))
        plain = choose_care(support.make_run(tmp_path, method), resolve_method(method))
        assert "resize_back" not in plain.description

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"input": "photos"}, "expected --input faces with --resize-back, found photos"),
            ({"size": "network"}, "expected no --size network with --resize-back, found both"),
            ({"grain": "keep"}, "expected no --grain keep with --resize-back, found both"),
            ({"max_harm": 0}, "expected no --max-harm 0 with --resize-back, found both"),
            ({"task": "inpaint", "mask_column": "m"}, "expected no --task inpaint with --resize-back, found both"),
        ],
    )
    def test_what_contradicts_it_is_refused(self, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=message):
            support.make_run(tmp_path, resize_back=True, **settings)

    def test_photos_that_the_first_rows_show_are_refused_before_any_work(self, method: str, tmp_path: Path) -> None:
        rows = [{"id": "0", "image": {"bytes": support.encoded(photo(1, 2, None, 4)), "path": None}}]
        support.write_parquet(tmp_path / "src" / "a.parquet", rows)
        with pytest.raises(UsageError, match="expected --input faces with --resize-back, found photos"):
            support.finished_run(support.make_run(tmp_path, method, input="auto", resize_back=True))
        assert not (tmp_path / "dst").exists()

    def test_comparisons_generations_and_redone_faces_have_it_too(self, tmp_path: Path) -> None:
        places = {"source": str(tmp_path / "src"), "destination": str(tmp_path / "dst")}
        compared = EvaluateRun(**places, methods=("passthrough", "estimator"), resize_back=True).restorations()
        assert [(run.resize_back, run.size, run.input) for run in compared] == [(True, None, "faces")] * 2
        (plain, *_) = EvaluateRun(**places, methods=("passthrough",)).restorations()
        assert (plain.resize_back, plain.size) == (False, "network")
        generation = ReprocessRun(**places, method="passthrough", resize_back=True).generation("there")
        assert generation.resize_back
        assert "resize_back" in _KEPT


class TestNoise:
    CHAIN: ClassVar = {"sampler": "ddim", "steps": 2, "start_timestep": 20, "cover": 0.0, "noise": "authors"}

    def test_a_face_takes_its_place_in_its_file_whatever_the_shards_and_batches(self, tmp_path: Path) -> None:
        pictures = [support.portrait(n, 128) for n in range(5)]
        for name in ("few", "many"):
            (tmp_path / name).mkdir()
        same = {"options": self.CHAIN, "seed": 12345, "size": "network", "max_harm": 1, "recogniser": "none"}
        rows = run_over(tmp_path / "few", pictures, "difface", shard_rows=4, batch_size=1, **same)
        others = run_over(tmp_path / "many", pictures, "difface", shard_rows=32, batch_size=3, **same)
        assert [row["seed"] for row in rows] == [12345] * 5
        restorer = load_method(resolve_method("difface", options=self.CHAIN))
        for place, (row, other) in enumerate(zip(rows, others, strict=True)):
            after = support.decoded(row["restored"]["bytes"])
            np.testing.assert_allclose(support.decoded(other["restored"]["bytes"]).astype(int), after, atol=1)
            one = FaceBatch(("x",), to_tensor(pictures[place])[None], (12345,), places=(place,))
            np.testing.assert_array_equal(to_uint8(restorer.restore(one).images[0]), after)

    def test_it_is_part_of_the_settings_and_runs_of_before_are_what_they_were(self) -> None:
        plain, asked = (
            resolve_method("difface", options=options)
            for options in ({"cover": 0.0}, {"cover": 0.0, "noise": "authors"})
        )
        assert "noise" not in plain.description["options"] and "noise" not in plain.description["preset"]["options"]
        assert asked.description["options"]["noise"] == "authors" and asked.fingerprint != plain.fingerprint

    def test_photos_and_other_methods_are_refused(self, tmp_path: Path) -> None:
        for settings in ({"input": "photos"}, {"input": "auto"}):
            rows = [{"id": "0", "image": {"bytes": support.encoded(photo(1, 2, None, 4)), "path": None}}]
            support.write_parquet(tmp_path / "src" / "a.parquet", rows)
            run = support.make_run(tmp_path, "difface", options={"noise": "authors", "cover": 0.0}, **settings)
            with pytest.raises(UsageError, match="expected --input faces with --noise authors, found photos"):
                support.finished_run(run)
        with pytest.raises(UsageError, match="unknown option 'noise' of diffbfr"):
            resolve_method("diffbfr", options={"noise": "authors"})
        with pytest.raises(UsageError, match=r"unknown noise 'author'.*did you mean 'authors'"):
            resolve_method("difface", options={"noise": "author"})
