"""The named sizes of the two baselines: no network at all, and DifFace's regression network alone. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from bfr_models.methods.difface_presets import ESTIMATOR512, EstimatorPreset
from bfr_models.methods.preset import OURS, S_LAB, EstimateOptions, Preset, at_256
from bfr_models.networks.configs import UNetEstimatorConfig


@dataclass(frozen=True)
class EstimatorOptions(EstimateOptions):
    compile: bool = False  # as in DifFaceOptions


PASSTHROUGH = tuple(Preset(name, size, OURS) for name, size in (("face128", 128), ("face256", 256), ("ffhq512", 512)))
_ESTIMATOR128 = EstimatorPreset(
    "face128",
    128,
    OURS,
    options=EstimatorOptions(),
    weights={"estimator": "difface-face128-estimator_unet"},
    estimator=UNetEstimatorConfig(),
)
ESTIMATOR = (
    _ESTIMATOR128,
    at_256(_ESTIMATOR128),
    EstimatorPreset(
        "ffhq512",
        512,
        S_LAB,
        options=EstimatorOptions(),
        weights={"estimator": "difface-ffhq512-estimator"},
        estimator=ESTIMATOR512,
    ),
)
