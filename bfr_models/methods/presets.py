"""Named sizes and weight sets of the methods, and the options a user may change. Imports no torch.

An options class is a frozen dataclass: its fields are the known options, its defaults the preset's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bfr_models.errors import UsageError
from bfr_models.networks.configs import SwinIRConfig, UNetConfig

OURS = "Apache-2.0"


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"unknown {option} {value!r}; known: {', '.join(known)}")


@dataclass(frozen=True)
class ResizeOptions:
    """Nothing to choose."""


@dataclass(frozen=True)
class NetworkOptions:
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, ("fp32", "bf16", "fp16"))


@dataclass(frozen=True)
class DifFaceOptions(NetworkOptions):
    """How the truncated chain is run. `start_timestep` is the paper's N, `eta` scales the step noise."""

    start_timestep: int = 150
    steps: int = 20
    sampler: Literal["ddim", "dpm++"] = "ddim"
    eta: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("sampler", self.sampler, ("ddim", "dpm++"))
        if not 1 <= self.steps <= self.start_timestep + 1:
            raise UsageError(f"expected steps in 1..{self.start_timestep + 1} (start_timestep + 1), got {self.steps}")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"expected eta in [0, 1], got {self.eta}")


@dataclass(frozen=True)
class Preset:
    """One size of one method. `weights` names the asset of each component (`bfr_models/assets`)."""

    name: str
    size: int  # side of the square faces, px
    licence: str
    options: object = ResizeOptions()
    weights: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EstimatorPreset(Preset):
    estimator: SwinIRConfig = field(default_factory=SwinIRConfig)


@dataclass(frozen=True)
class DifFacePreset(EstimatorPreset):
    """The prior is trained on t <= max_timestep: a chain may start no higher.

    The same noise hides more of a smaller face: at a quarter of the side, noise that hides the same
    detail has 1/16 of the variance per pixel, which puts the paper's N = 400 at 512 px near t = 150
    at 128 px.
    """

    prior: UNetConfig = field(kw_only=True)
    max_timestep: int = field(kw_only=True)


_ESTIMATOR128 = SwinIRConfig(
    unshuffle=4,
    embed_dim=96,
    depths=(4, 4, 4),
    num_heads=3,
    num_feat=32,
    drop_path=0.0,
    img_size=32,
    input_skip=True,
)
_PRIOR128 = UNetConfig(
    sample_size=128, channels=(48, 64, 96, 96), attention_levels=(3,), head_dim=16, norm_groups=16, unshuffle=2
)

PASSTHROUGH = (Preset("face128", 128, OURS), Preset("ffhq512", 512, OURS))
ESTIMATOR = (
    EstimatorPreset(
        "face128",
        128,
        OURS,
        options=NetworkOptions(),
        weights={"estimator": "difface-face128-estimator"},
        estimator=_ESTIMATOR128,
    ),
)
DIFFACE = (
    DifFacePreset(
        "face128",
        128,
        OURS,
        options=DifFaceOptions(),
        weights={"estimator": "difface-face128-estimator", "prior": "difface-face128-prior"},
        estimator=_ESTIMATOR128,
        prior=_PRIOR128,
        max_timestep=300,
    ),
)
