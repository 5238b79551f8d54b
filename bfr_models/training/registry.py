"""What can be trained, and with which numbers: change a recipe here.

One row per component, and one of what differs at 512 px. Everything else a component knows (its network, its loss, what
is measured) is in its class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bfr_models.errors import UsageError, unknown
from bfr_models.methods.clr_face_presets import CLR_FACE
from bfr_models.methods.difface_presets import DIFFACE, DifFacePreset
from bfr_models.methods.diffbfr_presets import DIFFBFR
from bfr_models.methods.preset import Preset
from bfr_models.training import clr_face, clr_face_decoder, detail, difface, diffbfr, diffbfr_flow, estimator_unet
from bfr_models.training import clr_face_guidance as guidance
from bfr_models.training.component import NO_AUXILIARY, AuxiliaryWeights, Component, Recipe
from bfr_models.training.component import LossWeights as Loss
from bfr_models.training.data import Augmentation

CLEAN: tuple[str, ...] = ()  # not degraded: for a prior, an autoencoder
# What the shipped weights were trained on: GFPGAN's ranges for two thirds of the faces.
MIXED = ("gfpgan_extreme", "gfpgan_extreme", "difface_extreme")
NO_FURTHER_TERMS = Loss()
# Of 20 faces 2 are degraded so that next to nothing is left, 3 as prints in archives are.
ARCHIVE = ("gfpgan",) * 9 + ("difface",) * 6 + ("archive",) * 3 + ("gfpgan_extreme", "difface_extreme")
OLD_PRINTS = Augmentation(toned=0.15, cast=0.15)
VQGAN_TERMS = Loss(perceptual=0.1, commitment=0.25, gan=0.25, gan_from=3000)
LOOKS = ("perceptual", "recogniser")  # the networks of `IdentityLoss`


@dataclass(frozen=True)
class Spec:
    build: Callable[[Any, AuxiliaryWeights, Recipe, Loss], Component]
    degradations: tuple[str, ...]
    steps: int
    batch_size: int
    learning_rate: float
    weights: Loss = NO_FURTHER_TERMS
    auxiliary: tuple[str, ...] = ()  # the frozen networks that its loss can use
    warmup: int = 200
    ema: float = 0.999
    augmentation: Augmentation = field(default_factory=Augmentation)

    def recipe(self, size: int) -> Recipe:
        return Recipe(
            size, self.degradations, self.steps, self.batch_size, self.learning_rate, warmup=self.warmup, ema=self.ema,
            augmentation=self.augmentation,
        )  # fmt: skip


COMPONENTS = {
    #                             class                       faces  steps batch  rate  loss weights, frozen networks
    ("difface", "estimator"): Spec(difface.Estimator,         MIXED,  8000,  16,  4e-4,
                                   Loss(perceptual=0.01, identity=0.15), LOOKS),
    ("difface", "estimator_unet"): Spec(estimator_unet.UNetRegression, ARCHIVE, 6000, 12, 5e-4,
                                   Loss(perceptual=0.02, lattice=40), ("perceptual",), warmup=100,
                                   augmentation=OLD_PRINTS),
    ("difface", "detail"):    Spec(detail.Detail,             ARCHIVE, 1300,  12,  6e-4,
                                   Loss(perceptual=0.02), ("perceptual", "estimator"), warmup=100,
                                   augmentation=OLD_PRINTS),
    ("difface", "prior"):     Spec(difface.Prior,             CLEAN,  8000,  16,  4e-4, augmentation=OLD_PRINTS),
    ("diffbfr", "irm_low"):   Spec(diffbfr.IrmLow,            ARCHIVE, 8000, 16,  4e-4,
                                   Loss(perceptual=0.05, identity=0.25), LOOKS, augmentation=OLD_PRINTS),
    ("diffbfr", "irm_high"):  Spec(diffbfr.IrmHigh,           ARCHIVE, 8000, 16,  4e-4,
                                   Loss(perceptual=0.05, identity=0.25), ("irm_low", "estimator", *LOOKS),
                                   augmentation=OLD_PRINTS),
    ("diffbfr", "flow"):      Spec(diffbfr_flow.Flow,         ARCHIVE, 8000, 16,  4e-4,
                                   auxiliary=("irm_low", "estimator", "perceptual"), augmentation=OLD_PRINTS),
    ("diffbfr", "tem"):       Spec(difface.Prior,             CLEAN,  8000,  16,  4e-4, augmentation=OLD_PRINTS),
    ("clr_face", "vqgan"):    Spec(clr_face.Autoencoder,      CLEAN,  8000,   8,  4e-4,
                                   VQGAN_TERMS, ("perceptual",)),
    ("clr_face", "vqgan_decoder"): Spec(clr_face_decoder.Decoder, CLEAN, 4000, 8, 6e-4,
                                   Loss(perceptual=0.05, lattice=40), ("perceptual",), augmentation=OLD_PRINTS),
    ("clr_face", "score"):    Spec(clr_face.Score,            ARCHIVE, 12000,  8,  4e-4, augmentation=OLD_PRINTS),
    ("clr_face", "irn"):      Spec(clr_face.IdentityRecovery, MIXED,  3000,   8,  2e-4,
                                   Loss(perceptual=0.1, identity=0.5), LOOKS),
    ("clr_face", "recogniser"): Spec(guidance.DistilledRecogniser, MIXED, 8000, 8, 1e-3, auxiliary=("recogniser",)),
    # Every step costs a pass through the decoder and back: few steps, and so a short warm-up and a short average.
    ("clr_face", "mask"):     Spec(guidance.Mask,             MIXED,   160,   8,  2e-3,
                                   Loss(perceptual=0.25, sparsity=0.002), LOOKS, warmup=20, ema=0.97),
}  # fmt: skip


def _at_512(method: str, component: str, steps: int, batch_size: int, rate: float, **changes: Any) -> Spec:
    numbers = {"warmup": 2000, "ema": 0.9999} | changes
    return replace(COMPONENTS[method, component], steps=steps, batch_size=batch_size, learning_rate=rate, **numbers)


# At 512 px, for FFHQ's 70,000 faces on 8 GPUs. DifFace's two have the degradations, batch and rate that its authors
# publish, and the prior as many steps as its published weights; all other numbers are ours, and nobody has tried them.
AT_512 = {
    (method, component): _at_512(method, component, steps, batch_size, rate, **changes)
    for method, component, steps, batch_size, rate, changes in (
        ("difface", "estimator",  300_000, 32, 5e-5, {"degradations": ("difface",), "ema": 0.999}),
        ("difface", "prior",      500_000, 64, 1e-4, {"ema": 0.999}),
        ("diffbfr", "irm_low",    300_000, 64, 1e-4, {}),
        ("diffbfr", "irm_high",   300_000, 32, 1e-4, {}),
        ("diffbfr", "tem",        500_000, 64, 1e-4, {"ema": 0.999}),
        ("clr_face", "vqgan",     200_000, 16, 5e-5, {"weights": replace(VQGAN_TERMS, gan_from=50_000)}),
        ("clr_face", "score",     400_000, 64, 1e-4, {}),
        ("clr_face", "irn",       100_000, 32, 5e-5, {"ema": 0.999}),
        ("clr_face", "recogniser", 50_000, 64, 1e-3, {}),
        ("clr_face", "mask",        4_000, 16, 1e-3, {"warmup": 100, "ema": 0.99}),
    )
}  # fmt: skip

PRESETS: dict[str, tuple[Preset, ...]] = {
    "difface": tuple(preset for preset in DIFFACE if isinstance(preset, DifFacePreset)),  # blind restoration alone
    "diffbfr": DIFFBFR,
    "clr_face": CLR_FACE,
}


def get_component(method: str, component: str, preset: str, auxiliary: AuxiliaryWeights = NO_AUXILIARY) -> Component:
    """The component to train. Unknown names list the known ones; auxiliary weights it has no use for are refused."""
    if (method, component) not in COMPONENTS:
        raise unknown("component", f"{method} {component}", [" ".join(key) for key in COMPONENTS])
    spec = COMPONENTS[method, component]
    by_name = {p.name: p for p in PRESETS[method]}
    if preset not in by_name:
        raise unknown(f"preset of {method}", preset, list(by_name))
    if by_name[preset].detail is not None and component != "detail":
        raise UsageError(
            f"expected another preset for {method} {component}, found {preset}: its networks are those of face128, but "
            f"for one, which `bfr train difface detail --preset {preset}` makes"
        )
    if useless := [name for name in auxiliary.given() if name not in spec.auxiliary]:
        allowed = ", ".join(spec.auxiliary) or "its own loss"
        raise UsageError(f"expected for {method} {component} only {allowed}, found {', '.join(useless)}")
    return build_component(method, component, by_name[preset], auxiliary)


def build_component(
    method: str, component: str, preset: Preset, auxiliary: AuxiliaryWeights = NO_AUXILIARY
) -> Component:
    """The component of any preset, with the recipe and the loss weights that the tables have for its size."""
    spec = (AT_512 if preset.size == 512 else COMPONENTS).get((method, component)) or COMPONENTS[method, component]
    return spec.build(preset, auxiliary, spec.recipe(preset.size), spec.weights)
