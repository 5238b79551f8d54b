"""Degraded on the device, faces are what they are on the CPU: with the same numbers the same, else alike as a set."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from bfr_models.degradation.batched import BatchedDegradation
from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.jpeg import jpeg, quantisation_tables
from bfr_models.degradation.presets import get_preset
from bfr_models.pixels import Uint8Image, to_tensor, to_uint8
from tests.support import portrait

SIDE = 128
QUALITIES = (10, 30, 49, 50, 75, 90, 100)


def encoded(image: Uint8Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


class TestJpeg:
    @pytest.mark.parametrize("quality", QUALITIES)
    def test_the_tables_are_those_of_pillow(self, quality: int) -> None:
        theirs = encoded(portrait(1, 32), quality).quantization  # type: ignore[attr-defined]
        for ours, number in zip(quantisation_tables(torch.tensor([quality])), (0, 1), strict=True):
            assert ours[0].flatten().tolist() == list(theirs[number])

    def test_what_is_lost_is_what_pillow_loses(self) -> None:
        """Half a level on average, of six to ten that a JPEG takes away: a coefficient on the verge of two steps."""
        noise = np.random.default_rng(0).normal(0, 8, (4, SIDE, SIDE, 3))
        faces = (np.stack([portrait(n, SIDE) for n in range(4)]) + noise).round().clip(0, 255).astype(np.uint8)
        for quality in QUALITIES:
            theirs = np.stack([np.asarray(encoded(face, quality)) for face in faces]).astype(float)
            levels = torch.from_numpy(faces).permute(0, 3, 1, 2).float()
            ours = jpeg(levels, torch.full((4,), quality)).permute(0, 2, 3, 1).numpy()
            assert np.abs(ours - theirs).mean() < 0.5 < 0.1 * np.abs(theirs - faces).mean()

    def test_each_image_has_its_own_quality(self) -> None:
        levels = torch.from_numpy(portrait(1, 64)).permute(2, 0, 1)[None].float()
        together = jpeg(levels.expand(2, -1, -1, -1), torch.tensor([20, 95]))
        for found, quality in zip(together, (20, 95), strict=True):
            assert torch.equal(found, jpeg(levels, torch.tensor([quality]))[0])

    def test_other_sides_are_refused(self) -> None:
        with pytest.raises(ValueError, match="multiples of 16"):
            jpeg(torch.zeros(1, 3, 24, 32), torch.tensor([50]))


def psnr(lq: NDArray[np.uint8], gt: NDArray[np.uint8]) -> NDArray[np.float64]:
    mse = ((lq.astype(float) - gt) ** 2).mean((1, 2, 3))
    return 10 * np.log10(255**2 / mse.clip(1e-2))


def fine_detail(faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Decibels of what changes from one pixel to the next, over one level."""
    grey = faces.astype(float).mean(-1)
    return 10 * np.log10(1 + np.diff(grey, axis=1).var((1, 2)) + np.diff(grey, axis=2).var((1, 2)))


@pytest.mark.parametrize("name", ["gfpgan", "difface_extreme"])
def test_faces_of_the_batch_and_of_the_cpu_are_alike_as_a_set(name: str) -> None:
    """No quantile is further off than two halves of one and the same sample are by chance, at 1 in 1,000."""
    count = 240
    gt = np.stack([portrait(n % 6, SIDE) for n in range(count)])
    cpu = np.stack([degrade(face, get_preset(name), seed) for seed, face in enumerate(gt)])
    rng, noise = np.random.default_rng(1), torch.Generator().manual_seed(1)
    degradation = BatchedDegradation([name], SIDE, "cpu")
    faces = torch.stack([to_tensor(face) for face in gt])
    batch = np.concatenate([to_uint8(degradation(part, rng, noise)) for part in faces.split(48)])
    for measure in (lambda lq: psnr(lq, gt), fine_detail):
        ours, theirs = np.sort(measure(batch)), np.sort(measure(cpu))
        everything = np.concatenate([ours, theirs])
        distance = max(abs((ours <= x).mean() - (theirs <= x).mean()) for x in everything)  # Kolmogorov's and Smirnov's
        assert distance < np.sqrt(-0.5 * np.log(0.001 / 2) * 2 / count), (name, distance)


def test_a_known_degradation_is_the_same_face_by_face(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, with everything drawn from single points: what is left is the JPEG's rounding."""
    point = replace(
        get_preset("gfpgan"), sigma=(9, 9), downsample=(7.3, 7.3), noise=(0, 0), quality=(80, 80), rotation=(1, 1)
    )
    monkeypatch.setattr("bfr_models.degradation.batched.get_preset", lambda name: point)
    gt = np.stack([portrait(n, SIDE) for n in range(3)])
    cpu = np.stack([degrade(face, point, 0) for face in gt])
    faces = torch.stack([to_tensor(face) for face in gt])
    ours = to_uint8(BatchedDegradation(["point"], SIDE, "cpu")(faces, np.random.default_rng(0), torch.Generator()))
    assert np.abs(ours.astype(float) - cpu).mean() < 0.4 < 0.1 * np.abs(cpu.astype(float) - gt).mean()


def test_prints_that_age_are_refused() -> None:
    with pytest.raises(ValueError, match="expected presets that age no face, got archive"):
        BatchedDegradation(["gfpgan", "archive"], SIDE, "cpu")
