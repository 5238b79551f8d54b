"""CLR-Face's presets: their networks' sizes, and the steps that are guided."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from bfr_models.errors import UsageError
from bfr_models.methods import clr_face_presets
from bfr_models.methods.clr_face_presets import CLR_FACE, CLRFaceOptions, CLRFacePreset
from bfr_models.methods.difface_presets import DIFFACE
from bfr_models.networks.estimators import build_estimator
from bfr_models.networks.latent_networks import LatentMask, LatentScore
from bfr_models.networks.mobile_face import MobileFace
from bfr_models.networks.vqgan import VQGAN
from tests.clr_face import TINY


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "gt"}, "unknown start 'gt'; known: irn, lq, noise"),
        ({"sampler": "euler"}, "unknown sampler 'euler'; known: euler-maruyama, heun, ddim, dpm"),
        ({"mask": "none"}, "unknown mask 'none'; known: learned, ones"),
        ({"start_time": 0.0}, r"expected start_time in \[0.01, 1\], got 0.0"),
        ({"steps": -1}, r"expected steps in \[0, 1000\], got -1"),
        ({"start": "noise", "steps": 0}, "expected steps above 0 for start noise"),
        ({"eta": 0.5}, "ddim alone has one"),
        ({"sampler": "ddim", "eta": 1.5}, r"expected eta in \[0, 1\]"),
        ({"guidance": -0.1}, r"expected guidance in \[0, 1\]"),
        ({"guide_from": 0.1, "guide_to": 0.2}, "expected 0 <= guide_to <= guide_from <= 1"),
        ({"residual": 1.5}, r"expected residual in \[0, 1\], got 1.5"),
        ({"guide_every": 0}, "expected guide_every above 0, got 0"),
        ({"steps": 1}, "expected a step between guide_to 0.05 and guide_from 0.3, found them at 0.4; take more steps"),
        ({"start_time": 0.9}, "expected start_time <= 0.8, as far as the prior of tiny is trained"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
    ],
)
def test_options_are_checked_before_any_work(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TINY.check(replace(CLRFaceOptions(), **options))


def test_every_second_step_of_the_range_is_guided() -> None:
    options = CLRFaceOptions(guide_from=0.3, guide_to=0.1, guide_every=2)
    assert options.guided_times([0.4, 0.3, 0.25, 0.2, 0.1, 0.05, 0.0]) == [0.3, 0.2]


def test_the_small_one_is_about_eight_mebibytes_in_half_precision_beside_difface() -> None:
    own = parameters(CLR_FACE[0])
    assert CLR_FACE[0].weights["irn"] == DIFFACE[0].weights["estimator"]
    assert 2 * (sum(own.values()) - own["irn"]) < 8.5 * 2**20


def test_the_large_one_has_the_published_networks_sizes() -> None:
    """vq-f4 55.3 M, latent diffusion's super-resolution U-Net 113.6 M, DifFace's SwinIR 15.8 M."""
    counts = {name: round(count / 1e6, 1) for name, count in parameters(CLR_FACE[-1]).items()}
    assert counts == {"vqgan": 55.3, "score": 113.6, "irn": 15.8, "mask": 0.1, "recogniser": 1.1}


def test_the_latents_are_a_quarter_of_the_side_that_the_chain_restores() -> None:
    for preset in CLR_FACE:
        assert preset.vqgan.factor == 4 and preset.score.sample_size == preset.size // (8 if preset.detail else 4)


def parameters(preset: CLRFacePreset) -> dict[str, int]:
    channels = preset.vqgan.latent_channels
    with torch.device("meta"):
        made = {
            "vqgan": VQGAN(preset.vqgan),
            "score": LatentScore(preset.score, channels),
            "irn": build_estimator(preset.irn),
            "mask": LatentMask(preset.mask, channels),
            "recogniser": MobileFace(preset.recogniser),
        }
    return {name: sum(p.numel() for p in network.parameters()) for name, network in made.items()}


def test_presets_import_no_torch() -> None:
    code = f"import sys, {clr_face_presets.__name__}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
