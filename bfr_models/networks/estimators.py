"""The regression networks by their configurations: DifFace's and the baseline's estimator, CLR-Face's Identity Recovery
Network."""

from __future__ import annotations

from torch import nn

from bfr_models.networks.configs import SwinIRConfig, UNetEstimatorConfig
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.unet_estimator import UNetEstimator


def build_estimator(config: SwinIRConfig | UNetEstimatorConfig) -> nn.Module:
    """(B, 3, size, size) in [0, 1] -> the same, of the face as it may have been."""
    return SwinIR(config) if isinstance(config, SwinIRConfig) else UNetEstimator(config)
