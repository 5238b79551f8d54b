"""Two components small enough to train in seconds, on synthetic faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bfr_models.methods.difface_presets import DifFacePreset
from bfr_models.networks.configs import SwinIRConfig, UNetConfig
from bfr_models.networks.mobile_face import MobileFace
from bfr_models.training.component import Component
from bfr_models.training.data import Faces
from bfr_models.training.difface import Estimator, Prior
from bfr_models.training.registry import build_component
from tests.support import portrait

SIZE = 32
TINY = DifFacePreset(
    "tiny",
    SIZE,
    "-",
    estimator=SwinIRConfig(
        unshuffle=2,
        embed_dim=24,
        depths=(2,),
        num_heads=2,
        drop_path=0.1,
        img_size=16,
        num_feat=8,
    ),
    prior=UNetConfig(sample_size=SIZE, channels=(16, 32), head_dim=8, norm_groups=8, unshuffle=2),
    max_timestep=300,
)


def for_a_few_steps(component: Any) -> Any:
    component.recipe = replace(component.recipe, batch_size=8, learning_rate=2e-3, warmup=5, ema=0.9)
    return component


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained recogniser."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    save_file(MobileFace().state_dict(), path)
    return path


@pytest.fixture
def estimator() -> Estimator:
    built: Estimator = for_a_few_steps(build_component("difface", "estimator", TINY))
    return built


@pytest.fixture
def prior() -> Prior:
    built: Prior = for_a_few_steps(build_component("difface", "prior", TINY))
    return built


@pytest.fixture(params=["estimator", "prior"])
def component(request: pytest.FixtureRequest) -> Component:
    """Each component in turn."""
    built: Component = request.getfixturevalue(request.param)
    return built


@pytest.fixture(scope="session")
def faces() -> Faces:
    portraits = np.stack([portrait(number, 2 * SIZE) for number in range(12)])
    return Faces(portraits[:9], portraits[9:], "portraits.parquet")
