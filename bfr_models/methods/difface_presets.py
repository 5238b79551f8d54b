"""DifFace's named sizes, and the options a user may change. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from bfr_models.errors import UsageError
from bfr_models.methods.preset import OURS, S_LAB, EstimateOptions, Preset, Task, at_256, one_of
from bfr_models.networks.configs import LaMaConfig, SwinIRConfig, UNetConfig, UNetEstimatorConfig

_MIN_RESPACED_STEPS = 10
"""The fewest that are spaced as in the authors' code. With fewer, `ancestral` misses start_timestep by more than 16,
and the first call of `ddim` is so far below the added noise that some of it is never removed."""


@dataclass(frozen=True)
class DifFaceOptions(EstimateOptions):
    """How the truncated chain is run. `start_timestep` is the paper's N, `eta` scales the step noise.

    With `cover` above 0 each face has an N of its own, for which `start_timestep` is the highest: the noise there grows
    with `cover` and with the square of what the estimator changed in the coarse face
    (`bfr_models.diffusion.own_start`). A face that needed little repair keeps its detail; where much was invented, the
    prior has more to say. This is ours; with 0
    all faces start at `start_timestep`.

    `start_gap` is the distance from N, where the noise is added, down to the first network call: 0 in the paper's
    equations. The authors' code adds the noise at index 100 of its respaced chain (t = 400) and continues from index 99
    (t = 396): one stride of the chain below. The presets with their networks do the same, with any number of steps
    (`PriorPreset.implied`): 20 from 400 are 380, 360, ... 0.

    `sampler`: "ddim"; "dpm++", deterministic, for 5 to 20 steps; "ancestral", as in the authors' first release, for
    priors with a learned variance. It spaces its timesteps as they did (`respaced_timesteps`): 100 steps from 400 are
    397, 393, ... 0, after noise at 401 if there is a gap, else at 397.

    `noise`: "rows", each face's from a generator of its own; "authors", all faces' from one stream, as in their code.
    """

    start_timestep: int = 150
    steps: int = 20
    sampler: Literal["ddim", "dpm++", "ancestral"] = "ddim"
    eta: float = 0.5
    start_gap: int = 0
    cover: float = 0.0
    noise: Literal["rows", "authors"] = "rows"
    compile: bool = False  # by torch.compile: a minute or more at the first batch, then faster on a GPU

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("sampler", self.sampler, ("ddim", "dpm++", "ancestral"))
        one_of("noise", self.noise, ("rows", "authors"))
        if self.start_gap < 0:
            raise UsageError(f"expected start_gap >= 0, got {self.start_gap}")
        most = self.start_timestep - self.start_gap + 1
        if not 1 <= self.steps <= most:
            why = "start_timestep - start_gap + 1" if self.start_gap else "start_timestep + 1"
            raise UsageError(f"expected steps in 1..{most} ({why}), got {self.steps}")
        if self.sampler == "ancestral" and self.steps < _MIN_RESPACED_STEPS:
            raise UsageError(f"expected steps >= {_MIN_RESPACED_STEPS} for the ancestral sampler, got {self.steps}")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"expected eta in [0, 1], got {self.eta}")
        if not 0 <= self.cover <= 20:
            raise UsageError(f"expected cover in [0, 20], got {self.cover}")


@dataclass(frozen=True)
class EstimatorPreset(Preset):
    estimator: SwinIRConfig | UNetEstimatorConfig = field(default_factory=SwinIRConfig)


@dataclass(frozen=True)
class PriorPreset(Preset):
    """The prior is trained on t <= max_timestep: a chain may start no higher."""

    prior: UNetConfig = field(kw_only=True)
    max_timestep: int = field(kw_only=True)

    def implied(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The gap of a preset that has one: the chain's stride, N / steps, with the authors' samplers.

        They respace the whole chain to T' = 1000 steps / N timesteps, whole multiples of the stride, and start at
        index `steps` of it, which is N (arXiv 2102.09672, section 4).
        """
        own = self.options
        if not isinstance(own, DifFaceOptions):
            return {}
        start, steps = given.get("start_timestep", own.start_timestep), given.get("steps", own.steps)
        is_respaced = given.get("sampler", own.sampler) != "dpm++" and steps >= _MIN_RESPACED_STEPS
        return {"start_gap": max(1, round(start / steps))} if own.start_gap and is_respaced else {}

    def check(self, options: DifFaceOptions) -> None:
        limit = self.max_timestep
        if options.start_timestep > limit:
            raise UsageError(f"expected start_timestep <= {limit}, as far as the prior of {self.name} is trained")
        if options.sampler == "ancestral" and not self.prior.learn_sigma:
            raise UsageError(f"expected sampler ddim or dpm++: the prior of {self.name} learned no variance")
        if options.cover and (options.sampler == "ancestral" or options.start_gap):
            raise UsageError("expected ddim or dpm++ and start_gap 0 with a cover: the authors' spacing has one N")
        if options.cover and options.noise == "authors":
            raise UsageError(
                f"expected noise rows, found authors: the faces of {self.name} have starts of their own, which the "
                "authors' have not; choose a preset of theirs, ffhq512, or set the options cover 0 and start_timestep"
            )


@dataclass(frozen=True)
class DifFacePreset(EstimatorPreset, PriorPreset):
    """Both networks of blind restoration.

    The same noise hides more of a smaller face: at a quarter of the side, noise that hides the same
    detail has 1/16 of the variance per pixel, which puts the paper's N = 400 at 512 px near t = 150
    at 128 px.
    """


@dataclass(frozen=True)
class InpaintPreset(PriorPreset):
    task: ClassVar[Task] = "inpaint"
    estimator: LaMaConfig = field(default_factory=LaMaConfig)

    def check(self, options: DifFaceOptions) -> None:
        super().check(options)
        if options.cover:
            raise UsageError(f"expected cover 0 for {self.name}, got {options.cover}: a hole has no change to go by")
        if options.self_ensemble:
            raise UsageError(f"expected self_ensemble false for {self.name}: it fills a hole once")


PRIOR128 = UNetConfig(
    sample_size=128,
    channels=(48, 64, 96, 96),
    layers_per_block=(1, 1, 2, 3),
    attention_levels=(2, 3),
    head_dim=16,
    norm_groups=16,
    unshuffle=2,
)

# The authors' networks. Levels with attention are those of 32, 16 and 8 px, above and in PRIOR256 of 16 and 8 px.
ESTIMATOR512 = SwinIRConfig()
PRIOR512 = UNetConfig(
    sample_size=512,
    channels=(32, 64, 128, 256, 256, 512, 512),
    layers_per_block=(1, 2, 2, 2, 2, 3, 4),
    attention_levels=(4, 5, 6),
    head_dim=64,
    learn_sigma=True,
)
PRIOR256 = UNetConfig(
    sample_size=256,
    channels=(128, 128, 256, 256, 512, 512),
    layers_per_block=2,
    attention_levels=(4, 5),
    head_dim=64,
    learn_sigma=True,
)

_FFHQ512 = DifFacePreset(
    "ffhq512",
    512,
    S_LAB,
    options=DifFaceOptions(start_timestep=400, steps=100, start_gap=4),
    weights={"estimator": "difface-ffhq512-estimator", "prior": "difface-ffhq512-prior"},
    estimator=ESTIMATOR512,
    prior=PRIOR512,
    max_timestep=999,
)
_FACE128 = DifFacePreset(
    "face128",
    128,
    OURS,
    # With less cover a recogniser finds a little more of the person in severely degraded faces; with this one the
    # prior moves them by a third of the estimator's error, and they are nearer to the clean ones than its own.
    options=DifFaceOptions(self_ensemble=True, start_timestep=120, steps=4, sampler="dpm++", cover=3.5),
    weights={"estimator": "difface-face128-estimator_unet", "prior": "difface-face128-prior"},
    estimator=UNetEstimatorConfig(),
    prior=PRIOR128,
    max_timestep=300,
)
DIFFACE = (
    _FACE128,
    at_256(_FACE128),
    _FFHQ512,
    replace(
        _FFHQ512,
        name="ffhq512-mse",  # their first estimator
        weights={"estimator": "difface-ffhq512-mse-estimator", "prior": "difface-ffhq512-prior"},
    ),
    InpaintPreset(
        "inpaint256",
        256,
        S_LAB,
        options=DifFaceOptions(start_timestep=480, steps=120, start_gap=4, eta=1.0),
        weights={"estimator": "difface-inpaint256-estimator", "prior": "difface-inpaint256-prior"},
        target="bfr_models.methods.difface_inpaint:DifFaceInpaint",
        prior=PRIOR256,
        max_timestep=999,
    ),
)
