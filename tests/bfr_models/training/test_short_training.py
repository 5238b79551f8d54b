"""A short training, for a GPU at hand for minutes, on the CPU: loop, checkpoints, what it draws on the device."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bfr_models.errors import BfrError, UsageError
from bfr_models.pixels import to_tensor, to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.training.component import NO_AUXILIARY, AuxiliaryWeights
from bfr_models.training.data import Augmentation, augment, read_faces
from bfr_models.training.device_faces import DeviceFaces, pack
from bfr_models.training.draws import BatchDraws
from bfr_models.training.perceptual import PerceptualDistance
from bfr_models.training.short_training import GRACE, Settings, Training, main
from bfr_models.types import FaceBatch
from bfr_models.weights.files import ASSETS, read_card
from tests import support

STILL = Augmentation(flip=0, rotation=0, scale=0, shift=0, colour=0, grey=0)
ABSENT = ("ray", "prefect", "facexlib", "fsspec", "cv2", "dlib", "pydantic", "typer", "lpips")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty people of two faces each."""
    rows = [{**row, "person": f"p{i // 2}"} for i, row in enumerate(support.make_rows(120, side=96))]
    return support.write_parquet(tmp_path_factory.mktemp("faces") / "faces.parquet", rows)


@pytest.fixture(scope="module")
def packed(source: Path) -> Path:
    file = source.with_name("packed.parquet")
    assert pack(source, file, 128, 144) == file.stat().st_size
    return file


def settings_of(packed: Path, out: Path, **changes: Any) -> Settings:
    out.mkdir(exist_ok=True)
    defaults = {"batch_size": 4, "device": "cpu", "compile": False, "checkpoint_minutes": 0.0, "minutes": 60.0}
    component = changes.pop("component", "difface/prior")
    return Settings(component, packed, out, **{"ends_at": time.time() + 3600, **defaults, **changes})


class TestFaces:
    def test_those_held_out_do_not_travel(self, source: Path, packed: Path) -> None:
        faces = read_faces(source, 128)
        there = DeviceFaces(packed, 128, STILL, "cpu")
        assert len(there) == len(faces.train) and there.faces.shape[1:] == (3, 144, 144)
        assert there.description == json.loads(json.dumps(faces.description))
        assert there.description["held_out"] > 0

    def test_a_still_view_is_the_face_and_a_mirrored_one_its_mirror(self, packed: Path) -> None:
        for flip in (0.0, 1.0):
            rng = np.random.default_rng(3)
            faces = DeviceFaces(packed, 144, Augmentation(flip, 0, 0, 0, 0, 0), "cpu")
            views = to_uint8(faces.views(5, rng))
            expected = faces.faces[np.random.default_rng(3).integers(len(faces), size=5)].permute(0, 2, 3, 1).numpy()
            expected = expected[:, :, ::-1] if flip else expected
            assert np.abs(views.astype(int) - expected).max() <= 1

    def test_views_are_alike_those_that_the_other_loop_draws_as_a_set(self, packed: Path) -> None:
        """By Kolmogorov's and Smirnov's distance, at 1 in 1,000: of brightness, colour and what the edges have."""
        count, a = 300, Augmentation(toned=0.3, cast=0.3, shift=0.1, rotation=20)
        faces = DeviceFaces(packed, 32, a, "cpu")
        ours = faces.views(count, np.random.default_rng(1))
        rng = np.random.default_rng(2)
        originals = faces.faces.permute(0, 2, 3, 1).numpy()
        theirs = torch.stack(
            [augment(to_tensor(originals[rng.integers(len(originals))]), 32, a, rng) for _ in range(count)]
        )
        for measure in (
            lambda x: x.mean((1, 2, 3)),
            lambda x: (x[:, 0] - x[:, 2]).mean((1, 2)),
            lambda x: x.diff(dim=3).square().mean((1, 2, 3)),
            lambda x: x[..., :4].mean((1, 2, 3)) - x[..., -4:].mean((1, 2, 3)),
        ):
            a_sorted, b_sorted = measure(ours), measure(theirs)
            everything = torch.cat([a_sorted, b_sorted])[:, None]
            distance = ((a_sorted <= everything).float().mean(1) - (b_sorted <= everything).float().mean(1)).abs().max()
            assert distance < np.sqrt(-0.5 * np.log(0.001 / 2) * 2 / count)

    def test_a_file_that_was_not_packed_is_refused(self, source: Path, tmp_path: Path) -> None:
        other = tmp_path / "faces.jpg"
        other.write_bytes(b"no Parquet")
        for file, found in (
            (source, "others"),
            (other, "others"),
            (tmp_path / "none", "no file"),
            (tmp_path, "no file"),
        ):
            with pytest.raises(UsageError, match=f"expected faces that were packed, found {found} at {file}"):
                DeviceFaces(file, 128, STILL, "cpu")

    def test_packed_images_have_all_of_their_colours(self, packed: Path) -> None:
        cell = pq.read_table(packed)["image"][0].as_py()
        assert Image.open(io.BytesIO(cell)).layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]


class TestDraws:
    def test_the_same_step_draws_the_same_and_another_one_not(self) -> None:
        one, same, other = (BatchDraws(3, step, 6, "cpu") for step in (1, 1, 2))
        noise = one(3, 4)
        assert torch.equal(noise, same(3, 4)) and not torch.equal(noise, other(3, 4))
        assert torch.equal(one.integers(2, 9), same.integers(2, 9)) and noise.shape == (6, 3, 4)

    def test_some_of_the_faces_have_their_numbers_and_a_stratum_each(self) -> None:
        draws = BatchDraws(0, 0, 8, "cpu")
        assert sorted((draws.stratified() * 8).long().tolist()) == list(range(8))
        some = draws.of(torch.tensor([1, 5]))
        assert some.numbers.tolist() == [1, 5] and some(2).shape == some.uniform(2).shape == (2, 2)
        assert draws.of(torch.arange(8) < 3).integers(0, 5).shape == (3,)


class TestTraining:
    @pytest.mark.slow
    def test_the_loss_falls_and_what_is_left_loads_and_goes_on(
        self, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        Training(settings_of(packed, out, steps=20, rate=20.0)).run()
        name = "difface-face128-prior"
        assert sorted(path.name for path in out.iterdir()) == [f"{name}.json", f"{name}.safetensors"]
        weights = out / f"{name}.safetensors"
        card = read_card(weights)
        losses = np.array(card["curve"]["loss"])
        assert losses[:, 0].tolist() == list(range(1, 21)) and card["steps"] == 20
        assert np.isfinite(losses).all() and losses[-5:, 1].mean() < 0.8 * losses[:5, 1].mean()
        assert weights.stat().st_size < 16 * 2**20

        monkeypatch.setenv("BFR_WEIGHTS", str(ASSETS))
        monkeypatch.setattr("bfr_models.weights.files.ASSETS", out)
        resolved = resolve_method("difface")
        assert resolved.weights["prior"]["sha256"] == card["sha256"]
        batch = FaceBatch(("a",), to_tensor(support.portrait(1, 128))[None], (1,))
        assert torch.isfinite(load_method(resolved).restore(batch).images).all()

        again = Training(settings_of(packed, out, steps=2))
        assert again.state.step == 20
        again.run()
        curve = read_card(weights)["curve"]["loss"]
        assert read_card(weights)["steps"] == 22 and curve[:20] == card["curve"]["loss"] and len(curve) == 22

    def test_what_is_aged_on_cpus_alone_is_degraded_without_that(self, packed: Path, tmp_path: Path) -> None:
        training = Training(settings_of(packed, tmp_path / "out", component="diffbfr/irm_low"))
        kinds = {"gfpgan", "difface", "gfpgan_extreme", "difface_extreme"}
        assert set(training.recipe.degradations) == kinds
        assert torch.isfinite(training._loss(training.state.network))

    def test_the_flow_is_trained_behind_what_a_face_goes_through_before_it(self, packed: Path, tmp_path: Path) -> None:
        names = {"estimator": "difface-face128-estimator_unet", "irm_low": "diffbfr-face128-irm_low"}
        auxiliary = AuxiliaryWeights(**{name: ASSETS / f"{file}.safetensors" for name, file in names.items()})
        Training(settings_of(packed, tmp_path / "out", component="diffbfr/flow", auxiliary=auxiliary, steps=1)).run()
        card = read_card(tmp_path / "out" / "diffbfr-face128-flow.safetensors")
        for name, file in names.items():
            assert card[f"{name}_sha256"] == read_card(ASSETS / f"{file}.safetensors")["sha256"]

    def test_it_ends_in_time_and_leaves_nothing_where_there_was_none(self, packed: Path, tmp_path: Path) -> None:
        Training(settings_of(packed, tmp_path / "out", ends_at=time.time() + GRACE - 1)).run()
        assert not list((tmp_path / "out").iterdir())

    def test_one_that_diverges_ends_and_keeps_what_it_had(self, packed: Path, tmp_path: Path) -> None:
        Training(settings_of(packed, tmp_path / "out", steps=1)).run()
        before = support.snapshot(tmp_path / "out")
        again = Training(settings_of(packed, tmp_path / "out", steps=1))
        next(again.state.network.parameters()).data.fill_(torch.nan)
        with pytest.raises(BfrError, match="found others after step 2: difface/prior has diverged"):
            again.run()
        assert support.snapshot(tmp_path / "out") == before

    def test_the_rate_warms_up_and_falls_with_the_time(self, packed: Path, tmp_path: Path) -> None:
        training = Training(settings_of(packed, tmp_path / "out", steps=1000))
        rates = []
        for step in (0, 99, 500, 875, 999):
            training.state.step = step
            rates.append(training._learning_rate() / training.recipe.learning_rate)
        assert rates == pytest.approx([1 / 200, 0.5, 1, 0.5, 0.004])

    def test_a_component_takes_the_frozen_networks_that_its_loss_can_use(self, packed: Path, tmp_path: Path) -> None:
        squeezenet = tmp_path / "squeezenet.pth"
        torch.save(PerceptualDistance().state_dict(), squeezenet)
        auxiliary = AuxiliaryWeights(perceptual=squeezenet, estimator=tmp_path / "not-its.safetensors")
        with_it, without = (
            Training(settings_of(packed, tmp_path / "out", component="diffbfr/irm_low", auxiliary=each))
            for each in (auxiliary, NO_AUXILIARY)
        )
        without.state.network.load_state_dict(with_it.state.network.state_dict())
        assert with_it._loss(with_it.state.network) > without._loss(without.state.network)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ("--initial difface/pror=a", "unknown component of --initial 'difface/pror'"),
            ("--initial difface/pror=a", "did you mean 'difface/prior'?"),
            ("--initial difface/prior", "expected --initial COMPONENT=FILE, found 'difface/prior'"),
            ("--data none.parquet", "found no file at none.parquet; pack them first: --pack FACES"),
        ],
    )
    def test_a_mistake_is_told_before_any_process_starts(
        self, words: str, told: str, packed: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        out = tmp_path / "out"
        monkeypatch.setattr(sys, "argv", ["short_training", "--data", str(packed), "--out", str(out), *words.split()])
        assert main() == 2
        assert told in capsys.readouterr().err and not out.exists()

    @pytest.mark.long
    def test_the_command_trains_components_side_by_side_with_few_packages(self, packed: Path, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text(f"import sys\nfor name in {ABSENT}:\n    sys.modules[name] = None\n")
        out = tmp_path / "out"
        words = f"--data {packed} --out {out} --minutes 5 --steps 1 --batch-size 2 --device cpu --no-compile"
        command = [sys.executable, "-m", "bfr_models.training.short_training", *words.split()]
        path = f"{tmp_path}:{support.ROOT}"
        done = subprocess.run(
            command, env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert len(list(out.glob("*.safetensors"))) == len(list(out.glob("*.json"))) == 4
        broken = [*command, "--components", "difface/prior", "--initial", f"difface/prior={tmp_path / 'none'}"]
        failed = subprocess.run(
            [*broken, "--out", str(tmp_path / "b")], env={"PYTHONPATH": path}, check=False, capture_output=True
        )
        assert failed.returncode == 1 and b"failed: difface/prior" in failed.stderr
