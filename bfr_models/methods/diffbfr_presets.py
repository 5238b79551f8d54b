"""DiffBFR's named sizes, and the options a user may change. Imports no torch.

The authors published neither code nor weights, and no source gives their settings, so those here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bfr_models.errors import UsageError
from bfr_models.methods.difface_presets import PRIOR128, PRIOR512, PriorPreset
from bfr_models.methods.preset import OURS, S_LAB, EstimateOptions, at_256, one_of
from bfr_models.networks.configs import UNetConfig, UNetEstimatorConfig


@dataclass(frozen=True)
class DiffBFROptions(EstimateOptions):
    """How the three stages are run. Timesteps are of the 1000 that the networks are trained on.

    The restoring chains start from the degraded face ("lq", the paper's, for which `self_ensemble` means nothing), or
    from a regression network's estimate of it ("estimate", ours). `start_low` and `start_high` are their N: more noise
    removes more of the degradation, and more of the person. `texture_timestep` is where the texture chain starts, the
    paper's "fractional time step", which can be read in two ways, and both work. As a fraction tau of the chain it is
    1000 tau: 20 is tau = 0.02. As a timestep between two trained ones it need not be whole: 22.5 has the noise of the
    (geometric) mean between 22 and 23, and the network is told 22.5.

    With `cover` above 0 each face has a start of its own in the second chain, for which `start_high` is the highest:
    the noise there grows with `cover` and with the square of what has been changed in the coarse face by then
    (`bfr_models.diffusion.own_start`). This is ours.

    `second` "flow" takes a rectified flow (`bfr_models.diffusion.flow`) in place of the second chain. It starts from
    the face as the first model has corrected it; `start_high`, `steps_high` and `cover` have no effect then, as
    `steps_flow` and `flow_share` have none without it. Of what the flow changes `flow_share` is taken: on the straight
    line between the face that is nearest to the true one on average, 0, and one that looks natural, 1, faces are as
    near as their naturalness allows (arXiv 2107.02555).

    `steps`, `steps_high` or `steps_flow`, and `steps_texture` are the network calls of each.

    The switches are for ablations: without `cascade` the first model is left out and the second restores the lq face
    itself; without `texture` the last chain is left out; without `truncated` the first chain starts at the last
    timestep from nothing but noise.
    """

    start: Literal["lq", "estimate"] = "lq"
    second: Literal["diffusion", "flow"] = "diffusion"
    start_low: int = 8
    start_high: int = 10
    texture_timestep: float = 5.0
    steps: int = 2
    steps_high: int = 2
    steps_flow: int = 4
    flow_share: float = 1.0
    steps_texture: int = 2
    sampler: Literal["ddim", "dpm++"] = "ddim"
    eta: float = 0.0  # of ddim: 0 deterministic, 1 ancestral
    cover: float = 0.0
    cascade: bool = True
    texture: bool = True
    truncated: bool = True
    compile: bool = False  # as in DifFaceOptions

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("start", self.start, ("lq", "estimate"))
        one_of("second", self.second, ("diffusion", "flow"))
        one_of("sampler", self.sampler, ("ddim", "dpm++"))
        for start, steps in (
            ("start_low", "steps"),
            ("start_high", "steps_high"),
            ("texture_timestep", "steps_texture"),
        ):
            highest, calls = getattr(self, start), getattr(self, steps)
            if not 0 <= highest < 1000:
                raise UsageError(f"expected {start} in 0..999, got {highest}")
            if not 1 <= calls <= highest + 1:
                raise UsageError(f"expected {steps} in 1..{int(highest) + 1} ({start} + 1), got {calls}")
        if not 1 <= self.steps_flow <= 1000:
            raise UsageError(f"expected steps_flow in 1..1000, got {self.steps_flow}")
        if not 0 < self.flow_share <= 1:
            raise UsageError(f"expected flow_share above 0, at most 1, got {self.flow_share}")
        if not 0 <= self.eta <= 1:
            raise UsageError(f"expected eta in [0, 1], got {self.eta}")
        if not 0 <= self.cover <= 20:
            raise UsageError(f"expected cover in [0, 20], got {self.cover}")
        if self.cover and not (self.cascade or self.start == "estimate"):
            raise UsageError("expected cascade or start estimate with a cover: nothing has changed the face before")
        if not (self.truncated or self.cascade):
            raise UsageError(
                "expected cascade where the chain is not truncated: the first model alone knows pure noise"
            )


@dataclass(frozen=True)
class DiffBFRPreset(PriorPreset):
    """The networks. The texture model is the `prior`: unconditional, trained on clean faces, DifFace's own.

    The first restoring model sees the lq face at a smaller size of its own. The second one is given two images beside
    x_t: the face as corrected by the first, and the lq face. `estimator` is the network of the start "estimate", `flow`
    that of the second "flow"; a preset may do without.

    Timesteps follow the argument of `DifFacePreset`: noise that hides the same detail has 1/4 of the variance per pixel
    at half the side. `ffhq512` starts its chains at 400 (128 px), 200 and 100 (512 px); with the same detail hidden,
    that is 262 at 64 px, 53 and 22 at 128 px. `face128` starts lower, at 4 and 5, because from higher ones held-out
    faces come out sharper but further from the person. The same is true of its second chain, whose starts go by the
    damage of the face. The flow in place of that brings faces nearer to the clean ones; three quarters of its change do
    so as well as all of it, and keep more of the person.
    """

    irm_low: UNetConfig = field(kw_only=True)
    irm_high: UNetConfig = field(kw_only=True)
    low_max_timestep: int = field(kw_only=True)
    high_max_timestep: int = field(kw_only=True)
    estimator: UNetEstimatorConfig | None = None
    flow: UNetConfig | None = None

    def check(self, options: Any) -> None:
        if options.start == "estimate" and self.estimator is None:
            raise UsageError(f"expected start lq: {self.name} has no regression network")
        if options.second == "flow" and self.flow is None:
            raise UsageError(f"expected second diffusion: {self.name} has no flow")
        if options.second == "flow" and options.start == "lq":
            raise UsageError("expected second diffusion with start lq: the flow carries on a regression network's face")
        limits = {
            "start_low": self.low_max_timestep,
            "start_high": self.high_max_timestep,
            "texture_timestep": self.max_timestep,
        }
        for start, limit in limits.items():
            if getattr(options, start) > limit:
                raise UsageError(f"expected {start} <= {limit}, as far as that network of {self.name} is trained")


# Both restoring models have the shape of our first, shallower prior, whose weights they were trained from. At 64 px its
# coarsest level, which alone had attention, would be one of 4 px, and is left out.
IRM_HIGH128 = replace(PRIOR128, layers_per_block=1, attention_levels=(3,), condition_channels=6)
FLOW128 = replace(IRM_HIGH128, condition_channels=0)
IRM_LOW128 = replace(IRM_HIGH128, sample_size=64, channels=(48, 64, 96), attention_levels=(), condition_channels=3)
# SR3's network for 128 px, without its dropout.
IRM_LOW512 = UNetConfig(
    sample_size=128,
    channels=(64, 128, 256, 512, 512),
    layers_per_block=2,
    attention_levels=(3,),
    head_dim=64,
    condition_channels=3,
    scale_shift=False,
)

_FACE128 = DiffBFRPreset(
    "face128",
    128,
    OURS,
    options=DiffBFROptions(
        self_ensemble=True,
        start="estimate",
        second="flow",
        flow_share=0.75,
        start_low=4,
        start_high=100,
        steps_high=4,
        sampler="dpm++",
        cover=3.5,
    ),
    weights={
        "estimator": "difface-face128-estimator_unet",
        "irm_low": "diffbfr-face128-irm_low",
        "irm_high": "diffbfr-face128-irm_high",
        "flow": "diffbfr-face128-flow",
        "tem": "difface-face128-prior",
    },
    irm_low=IRM_LOW128,
    irm_high=IRM_HIGH128,
    prior=PRIOR128,
    low_max_timestep=999,
    high_max_timestep=300,
    max_timestep=300,
    estimator=UNetEstimatorConfig(),
    flow=FLOW128,
)
DIFFBFR = (
    _FACE128,
    at_256(_FACE128),
    DiffBFRPreset(
        "ffhq512",
        512,
        S_LAB,
        options=DiffBFROptions(
            start_low=400,
            start_high=200,
            texture_timestep=100.0,
            steps=100,
            steps_high=50,
            steps_texture=25,
            sampler="ddim",
            eta=1.0,
        ),
        weights={
            "irm_low": "diffbfr-ffhq512-irm_low",
            "irm_high": "diffbfr-ffhq512-irm_high",
            "tem": "difface-ffhq512-prior",
        },
        irm_low=IRM_LOW512,
        irm_high=replace(PRIOR512, condition_channels=6, learn_sigma=False),
        prior=PRIOR512,
        low_max_timestep=999,
        high_max_timestep=999,
        max_timestep=999,
    ),
)
