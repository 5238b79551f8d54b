"""CLR-Face's named sizes, and the options a user may change. Imports no torch.

The authors published neither code nor weights. The choices here are ours, except the networks of `ffhq512`, which are
those of latent diffusion at the paper's spatial factor of 4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from bfr_models.diffusion.times import times_from
from bfr_models.errors import UsageError
from bfr_models.methods.difface_presets import ESTIMATOR512
from bfr_models.methods.preset import OURS, EstimateOptions, Preset, at_256, one_of
from bfr_models.networks.configs import (
    LatentMaskConfig,
    MobileFaceConfig,
    SwinIRConfig,
    UNetConfig,
    UNetEstimatorConfig,
    VQGANConfig,
)

SAMPLERS = ("euler-maruyama", "heun", "ddim", "dpm++")
STARTS = ("irn", "lq", "noise")
MASKS = ("learned", "ones")
SHORTEST = 0.01
"""The lowest time that a chain may start at."""
_BOUNDS = {"start_time": (SHORTEST, 1), "cover": (0, 10), "steps": (0, 1000)} | dict.fromkeys(
    ("eta", "guidance", "residual"), (0, 1)
)


@dataclass(frozen=True)
class CLRFaceOptions(EstimateOptions):
    """How the reverse chain is run and where it is guided. Times t are the SDE's, in [0, 1]. The estimate that
    `self_ensemble` is about is the Identity Recovery Network's face.

    The chain starts at `start_time` from the latent of the Identity Recovery Network's face ("irn"), of the degraded
    face ("lq"), or at the prior's last time from nothing but noise ("noise"), and takes `steps` steps; 0 steps decode
    the start itself.

    With `cover` above 0 each face has a start of its own, for which `start_time` is the highest: the noise there is
    `cover` times as large as what the Identity Recovery Network changed in the coarse latent, sigma / alpha = cover *
    rms(pool(z_irn - z_y)), pooled to 8 x 8. A face that needed little repair keeps its detail; where much was
    invented, the prior has more to say. Faces then go one by one. This is ours, and has no effect on the other starts.

    A guided step moves the latent by `guidance` s(t) along the mask times the identity gradient of unit RMS. Steps are
    guided where `guide_to` <= t <= `guide_from`, every `guide_every`-th of them. Each costs a pass through the
    decoder and back; `checkpointing` takes a third more time for it, but the memory of only one block's activations.

    `residual` is the share of the autoencoder's loss on the Identity Recovery Network's face that is added back:
    x = G(z_0) + residual (x_irn - G(z_irn)). This is ours, for autoencoders that lose much. 0 is the paper's method;
    with 1 the result differs from the network's face only by what the latent chain changed.

    `quantised`: whether a latent becomes its nearest codes before it is decoded, as in the paper. A chain that means to
    change a place a little then changes it by a whole code or not at all.

    Guided faces go in groups of `guide_faces`, which bounds the memory. The last group is filled up, because the last
    digits of a network's sums depend on the batch size, and a gradient magnifies them. Larger groups are faster on a
    GPU, not on a CPU.
    """

    start: Literal["irn", "lq", "noise"] = "irn"
    start_time: float = 0.4
    cover: float = 0.0
    steps: int = 10
    sampler: Literal["euler-maruyama", "heun", "ddim", "dpm++"] = "dpm++"
    eta: float = 0.0  # of ddim: 0 deterministic, 1 ancestral
    guidance: float = 0.15
    guide_from: float = 0.3
    guide_to: float = 0.05
    guide_every: int = 2
    mask: Literal["learned", "ones"] = "learned"
    residual: float = 0.0
    quantised: bool = True
    guide_faces: int = 1
    checkpointing: bool = False
    compile: bool = False  # as in DifFaceOptions

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("start", self.start, STARTS)
        one_of("sampler", self.sampler, SAMPLERS)
        one_of("mask", self.mask, MASKS)
        for name, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"expected {name} in [{low}, {high}], got {getattr(self, name)}")
        if self.start == "noise" and self.steps == 0:
            raise UsageError("expected steps above 0 for start noise, got 0")
        if self.eta > 0 and self.sampler != "ddim":
            raise UsageError(f"expected eta 0 for sampler {self.sampler}, got {self.eta}; ddim alone has one")
        if not 0 <= self.guide_to <= self.guide_from <= 1:
            raise UsageError(
                f"expected 0 <= guide_to <= guide_from <= 1, got guide_to {self.guide_to}, guide_from {self.guide_from}"
            )
        for name in ("guide_every", "guide_faces"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} above 0, got {getattr(self, name)}")

    @property
    def guided(self) -> bool:
        return self.guidance > 0 and self.steps > 0

    @property
    def uses_irn(self) -> bool:
        """Whether anything looks at the Identity Recovery Network's face."""
        return self.start == "irn" or self.guided or self.residual > 0

    @property
    def own_starts(self) -> bool:
        """Whether each face has a start of its own."""
        return self.cover > 0 and self.start == "irn" and self.steps > 0

    def guided_times(self, times: list[float]) -> list[float]:
        """The times of a chain at which it is guided."""
        return [t for t in times[:-1] if self.guide_to <= t <= self.guide_from][:: self.guide_every]


@dataclass(frozen=True)
class CLRFacePreset(Preset):
    """The five networks. The score network is trained on t <= max_time: a chain may start no higher.

    `guided_by` names the component that is the guiding recogniser: a run that is scored by the same network, or by the
    one it was distilled from, scores itself.
    """

    vqgan: VQGANConfig = field(kw_only=True)
    score: UNetConfig = field(kw_only=True)
    irn: SwinIRConfig | UNetEstimatorConfig = field(kw_only=True)
    mask: LatentMaskConfig = field(kw_only=True)
    recogniser: MobileFaceConfig = field(kw_only=True)
    max_time: float = 1.0
    guided_by: str = "recogniser"

    @property
    def sees_estimate(self) -> bool:
        """Whether the score network is conditioned on the Identity Recovery Network's face as well. The paper's sees
        the degraded one alone, and has to find again at each step what the other network has found already."""
        return self.score.condition_channels > self.vqgan.latent_channels

    def times(self, options: CLRFaceOptions, start: float | None = None) -> list[float]:
        """The chain's times from `start`, by default the highest, down to 0; just 0 without steps."""
        if start is None:
            start = self.max_time if options.start == "noise" else options.start_time
        return times_from(start, options.steps) if options.steps else [0.0]

    def check(self, options: CLRFaceOptions) -> None:
        if options.start_time > self.max_time:
            raise UsageError(f"expected start_time <= {self.max_time}, as far as the prior of {self.name} is trained")
        if not options.guided:
            return
        for start in (None, SHORTEST) if options.own_starts else (None,):
            times = self.times(options, start)
            if not options.guided_times(times):
                raise UsageError(
                    f"expected a step between guide_to {options.guide_to} and guide_from {options.guide_from}, found "
                    f"them at {', '.join(f'{t:.3g}' for t in times[:-1])}; take more steps, another range, or "
                    "guidance 0"
                )


_FACE128 = CLRFacePreset(
    "face128",
    128,
    OURS,
    # From a higher start, mildly degraded faces come out less like themselves. The residual is there because so
    # small an autoencoder loses much; beside it, codes would add noise to what the chain does not mean to change.
    options=CLRFaceOptions(
        self_ensemble=True,
        start_time=0.2,
        cover=1.0,
        steps=4,
        guidance=0.1,
        guide_to=0.01,
        guide_every=1,
        residual=1.0,
        quantised=False,
    ),
    # The IRN is DifFace's estimator.
    weights={name: f"clr_face-face128-{name}" for name in ("vqgan", "score", "mask", "recogniser")}
    | {"irn": "difface-face128-estimator_unet"},
    vqgan=VQGANConfig((48, 96), 1, codes=4096, norm_groups=16, mid_attention=False, unshuffle=2),
    score=UNetConfig(
        sample_size=32,
        channels=(48, 64, 96),
        attention_levels=(2,),
        head_dim=16,
        norm_groups=16,
        condition_channels=6,
    ),
    irn=UNetEstimatorConfig(),
    mask=LatentMaskConfig(channels=32),
    recogniser=MobileFaceConfig(
        stem=32,
        stages=((48, 96, 96, 3, 8), (96, 192, 192, 4, 8), (96, 384, 192, 2, 8)),
        head=256,
    ),
)
CLR_FACE = (
    _FACE128,
    at_256(_FACE128),
    CLRFacePreset(
        "ffhq512",
        512,
        OURS,  # of the networks' shapes; weights have the licence of their training or conversion
        options=CLRFaceOptions(steps=20, checkpointing=True),
        weights={name: f"clr_face-ffhq512-{name}" for name in ("vqgan", "score", "irn", "mask")}
        | {"recogniser": "recogniser-face-reidentification-retail-0095"},
        vqgan=VQGANConfig(),
        score=UNetConfig(
            sample_size=128,
            channels=(160, 320, 320, 640),
            layers_per_block=2,
            attention_levels=(3,),
            head_dim=32,
            condition_channels=3,
            scale_shift=False,
        ),
        irn=ESTIMATOR512,
        mask=LatentMaskConfig(),
        recogniser=MobileFaceConfig(),
    ),
)
