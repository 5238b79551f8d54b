"""DiffBFR at a size that tests train and run in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bfr_models.methods.diffbfr_presets import DiffBFROptions, DiffBFRPreset
from bfr_models.networks.configs import UNetConfig
from bfr_models.networks.unet import UNet
from bfr_models.training.component import NO_AUXILIARY, AuxiliaryWeights
from bfr_models.training.diffbfr import IrmHigh, IrmLow
from bfr_models.training.diffbfr_flow import Flow
from bfr_models.training.registry import build_component
from bfr_models.weights.tensors import parameters_of, save_weights

SIZE = 32
PRIOR = UNetConfig(sample_size=SIZE, channels=(16, 32), head_dim=8, norm_groups=8, unshuffle=2)
TINY = DiffBFRPreset(
    "tiny",
    SIZE,
    "-",
    options=DiffBFROptions(start_low=250, start_high=50, steps=4, steps_high=3),
    irm_low=replace(PRIOR, sample_size=SIZE // 2, condition_channels=3),
    irm_high=replace(PRIOR, condition_channels=6),
    prior=PRIOR,
    low_max_timestep=999,
    high_max_timestep=300,
    max_timestep=300,
    flow=PRIOR,
)


def irm_low(preset: DiffBFRPreset = TINY, auxiliary: AuxiliaryWeights = NO_AUXILIARY) -> IrmLow:
    component = build_component("diffbfr", "irm_low", preset, auxiliary)
    assert isinstance(component, IrmLow)
    return component


def irm_high(preset: DiffBFRPreset = TINY, auxiliary: AuxiliaryWeights = NO_AUXILIARY) -> IrmHigh:
    component = build_component("diffbfr", "irm_high", preset, auxiliary)
    assert isinstance(component, IrmHigh)
    return component


def flow(auxiliary: AuxiliaryWeights = NO_AUXILIARY, preset: DiffBFRPreset = TINY) -> Flow:
    component = build_component("diffbfr", "flow", preset, auxiliary)
    assert isinstance(component, Flow)
    return component


def saved(network: nn.Module, path: Path) -> Path:
    save_weights(parameters_of(network), {}, path)
    return path


def randomised(config: UNetConfig, seed: int) -> UNet:
    torch.manual_seed(seed)
    return UNet(config).eval()
