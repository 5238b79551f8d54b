"""Real-ESRGAN's published generators: their names are ours, so nothing is changed, left over or missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfr_models.conversion.strict import State, exactly, on_meta, tensors
from bfr_models.networks.configs import RRDBNetConfig
from bfr_models.networks.rrdbnet import RRDBNet


def convert_x2plus(state: Mapping[str, Any]) -> State:
    """`RealESRGAN_x2plus.pth` as the parameters of `RRDBNet(RRDBNetConfig(factor=2))`."""
    return convert_rrdbnet(state, RRDBNetConfig(factor=2))


def convert_x4plus(state: Mapping[str, Any]) -> State:
    """`RealESRGAN_x4plus.pth` as the parameters of `RRDBNet(RRDBNetConfig(factor=4))`."""
    return convert_rrdbnet(state, RRDBNetConfig(factor=4))


def convert_rrdbnet(state: Mapping[str, Any], config: RRDBNetConfig) -> State:
    """A published RRDBNet of this shape as the parameters of `RRDBNet(config)`. UsageError lists what differs."""
    return exactly(tensors(state), on_meta(RRDBNet, config))
