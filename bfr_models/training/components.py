"""What can be trained: one row per component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bfr_models.errors import UsageError, unknown
from bfr_models.methods.presets import DifFacePreset
from bfr_models.registry import methods
from bfr_models.training import difface
from bfr_models.training.component import NO_AIDS, Aids, Component


@dataclass(frozen=True)
class _Spec:
    build: Callable[[Any, Aids], Component]
    preset: type  # of the method's presets, the one with the component's settings
    aids: tuple[str, ...] = ()  # that its loss can look through


COMPONENTS: dict[tuple[str, str], _Spec] = {
    ("difface", "estimator"): _Spec(difface.Estimator, DifFacePreset, ("perceptual", "recogniser")),
    ("difface", "prior"): _Spec(difface.Prior, DifFacePreset),
}


def get_component(method: str, component: str, preset: str, aids: Aids = NO_AIDS) -> Component:
    """The component to train; unknown names list the known ones, aids that its loss has no use for are refused."""
    if (method, component) not in COMPONENTS:
        raise unknown("component", f"{method} {component}", [" ".join(key) for key in COMPONENTS])
    spec = COMPONENTS[method, component]
    by_name = {p.name: p for p in methods()[method].presets if isinstance(p, spec.preset)}
    if preset not in by_name:
        raise unknown(f"preset of {method}", preset, list(by_name))
    if useless := [name for name in aids.given() if name not in spec.aids]:
        allowed = ", ".join(spec.aids) or "its own loss"
        raise UsageError(f"expected for {method} {component} only {allowed}, found {', '.join(useless)}")
    return spec.build(by_name[preset], aids)
