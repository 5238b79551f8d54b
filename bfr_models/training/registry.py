"""What can be trained: one row per component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bfr_models.errors import UsageError, unknown
from bfr_models.methods.clr_face_presets import CLR_FACE, CLRFacePreset
from bfr_models.methods.difface_presets import DIFFACE, DifFacePreset
from bfr_models.methods.diffbfr_presets import DIFFBFR, DiffBFRPreset
from bfr_models.methods.preset import Preset
from bfr_models.training import clr_face, clr_face_guidance, difface, diffbfr
from bfr_models.training.component import NO_AIDS, Aids, Component


@dataclass(frozen=True)
class _Spec:
    build: Callable[[Any, Aids], Component]
    preset: type  # of the method's presets, the one with the component's settings
    aids: tuple[str, ...] = ()  # that its loss can look through


PRESETS: dict[str, tuple[Preset, ...]] = {"difface": DIFFACE, "diffbfr": DIFFBFR, "clr_face": CLR_FACE}

COMPONENTS: dict[tuple[str, str], _Spec] = {
    ("difface", "estimator"): _Spec(difface.Estimator, DifFacePreset, ("perceptual", "recogniser")),
    ("difface", "prior"): _Spec(difface.Prior, DifFacePreset),
    ("diffbfr", "irm_low"): _Spec(diffbfr.IrmLow, DiffBFRPreset, ("perceptual", "recogniser")),
    ("diffbfr", "irm_high"): _Spec(diffbfr.IrmHigh, DiffBFRPreset, ("irm_low", "perceptual", "recogniser")),
    ("diffbfr", "tem"): _Spec(difface.Prior, DiffBFRPreset),
    ("clr_face", "vqgan"): _Spec(clr_face.Autoencoder, CLRFacePreset, ("perceptual",)),
    ("clr_face", "score"): _Spec(clr_face.Score, CLRFacePreset),
    ("clr_face", "irn"): _Spec(clr_face.IdentityRecovery, CLRFacePreset, ("perceptual", "recogniser")),
    ("clr_face", "recogniser"): _Spec(clr_face_guidance.Student, CLRFacePreset, ("recogniser",)),
    ("clr_face", "mask"): _Spec(clr_face_guidance.Mask, CLRFacePreset, ("perceptual", "recogniser")),
}


def get_component(method: str, component: str, preset: str, aids: Aids = NO_AIDS) -> Component:
    """The component to train; unknown names list the known ones, aids that its loss has no use for are refused."""
    if (method, component) not in COMPONENTS:
        raise unknown("component", f"{method} {component}", [" ".join(key) for key in COMPONENTS])
    spec = COMPONENTS[method, component]
    by_name = {p.name: p for p in PRESETS[method] if isinstance(p, spec.preset)}
    if preset not in by_name:
        raise unknown(f"preset of {method}", preset, list(by_name))
    if useless := [name for name in aids.given() if name not in spec.aids]:
        allowed = ", ".join(spec.aids) or "its own loss"
        raise UsageError(f"expected for {method} {component} only {allowed}, found {', '.join(useless)}")
    return spec.build(by_name[preset], aids)
