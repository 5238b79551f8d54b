"""The table of methods: start reading here. Listing and checking them imports no torch.

A method of your own needs no change here: expose a `MethodSpec` under the entry-point group `bfr.methods`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from typing import Any

from bfr_models.errors import UsageError, did_you_mean, unknown
from bfr_models.methods import preset as presets
from bfr_models.methods.baseline_presets import ESTIMATOR, PASSTHROUGH
from bfr_models.methods.clr_face_presets import CLR_FACE
from bfr_models.methods.difface_presets import DIFFACE
from bfr_models.methods.diffbfr_presets import DIFFBFR
from bfr_models.methods.effort import STANDARD, effort_options
from bfr_models.methods.fidelity import fidelity_options
from bfr_models.types import Restorer
from bfr_models.weights.files import read_card, require_weight

ENTRY_POINTS = "bfr.methods"


@dataclass(frozen=True)
class MethodSpec:
    """One row of the table."""

    name: str
    target: str  # "module:Class", imported when a worker loads it; called with (ResolvedMethod, device)
    paper: str
    summary: str
    presets: tuple[presets.Preset, ...]


BUILT_IN = (
    #          name           target (under bfr_models.methods)                     paper
    MethodSpec("passthrough", "bfr_models.methods.passthrough:Passthrough", "-",
               "bicubic resize; the baseline", PASSTHROUGH),
    MethodSpec("estimator", "bfr_models.methods.estimator:Estimator", "arXiv:2212.06512",
               "DifFace's regression network alone: faithful, too smooth", ESTIMATOR),
    MethodSpec("difface", "bfr_models.methods.difface:DifFace", "arXiv:2212.06512",
               "the estimate, diffused to step N and denoised by an unconditional prior", DIFFACE),
    MethodSpec("diffbfr", "bfr_models.methods.diffbfr:DiffBFR", "arXiv:2305.04517",
               "conditional models of two sizes (or a flow), then an unconditional one for texture", DIFFBFR),
    MethodSpec("clr_face", "bfr_models.methods.clr_face:CLRFace", "arXiv:2402.06106",
               "latent diffusion from an identity-recovering start, guided by a recogniser", CLR_FACE),
)  # fmt: skip


@dataclass(frozen=True)
class ResolvedMethod:
    """A method with everything that decides its output, resolved: all that a worker needs to load it."""

    name: str
    preset: presets.Preset
    options: Any  # the preset's options class, with the user's changes
    weights: Mapping[str, Mapping[str, str]]  # component -> {file, sha256}
    target: str

    @property
    def description(self) -> dict[str, Any]:
        """What changes the output, as plain data."""
        preset = _as_before(dataclasses.asdict(self.preset), self.name)
        if self.preset.detail is None:  # which came later, as those in `_LATER`
            del preset["detail"]
        return {
            "method": self.name,
            "preset": preset,
            "options": _as_before(dataclasses.asdict(self.options), self.name),
            "weights": {component: dict(weight) for component, weight in self.weights.items()},
        }

    @property
    def coarse(self) -> ResolvedMethod:
        """What restores at half the side where another network draws the rest; else the method itself."""
        if self.preset.detail is None:
            return self
        preset = dataclasses.replace(self.preset, size=self.preset.size // 2, detail=None)
        return dataclasses.replace(self, preset=preset)

    @property
    def draws_one_stream(self) -> bool:
        """Whether its faces draw from one stream of the run's seed, and not each from its own."""
        return getattr(self.options, "noise", None) == "authors"

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits, which change whenever the method's output may."""
        canonical = json.dumps(self.description, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@cache
def methods() -> dict[str, MethodSpec]:
    """All methods by name: built in, and from installed packages."""
    table = {spec.name: spec for spec in BUILT_IN}
    for entry in entry_points(group=ENTRY_POINTS):
        spec = entry.load()
        if not isinstance(spec, MethodSpec) or spec.name in table:
            raise UsageError(f"entry point {entry.value!r}: expected a MethodSpec with a new name, found {spec!r}")
        table[spec.name] = spec
    return table


def resolve_method(
    name: str,
    preset: str | None = None,
    options: Mapping[str, object] | None = None,
    task: presets.Task | None = None,
    fidelity: float | None = None,
    effort: str = STANDARD,
) -> ResolvedMethod:
    """Checks names and options and reads the weights' checksums. The default preset is the method's first for `task`.
    `fidelity`, in [0, 1], sets the options that are on the method's dial (`bfr_models.methods.fidelity`), `effort` the
    numbers of network calls (`bfr_models.methods.effort`).

    UsageError lists the known names, or says how to get weights that are missing; nothing is downloaded.
    """
    if name not in methods():
        raise unknown("method", name, list(methods()))
    spec = methods()[name]
    by_name = {p.name: p for p in spec.presets}
    if preset is not None and preset not in by_name:
        raise unknown(f"preset of {name}", preset, list(by_name))
    chosen = by_name[preset] if preset is not None else _first(spec, task)
    if task not in (None, chosen.task):
        raise UsageError(
            f"expected a preset of {name} for the task {task}, found {chosen.name}, which is for {chosen.task}; use "
            f"{_first(spec, task).name}, or the task {chosen.task}"
        )
    asked = dict(options or {})
    preset_options: Any = chosen.options
    effortful = effort_options(name, chosen.name, effort, asked)
    own = dataclasses.replace(preset_options, **_typed(preset_options, effortful, name))
    dialled = {} if fidelity is None else fidelity_options(name, chosen.name, own, fidelity, asked)
    given = _typed(own, asked | dialled, name)
    chosen_options = dataclasses.replace(own, **chosen.implied(effortful | given) | given)
    chosen.check(chosen_options)
    weights = {component: _weight(stem) for component, stem in chosen.weights.items()}
    return ResolvedMethod(name, chosen, chosen_options, weights, chosen.target or spec.target)


def _first(spec: MethodSpec, task: presets.Task | None) -> presets.Preset:
    found = next((preset for preset in spec.presets if task in (None, preset.task)), None)
    if found is None:
        able = [other.name for other in methods().values() if any(p.task == task for p in other.presets)]
        raise UsageError(f"expected a method for the task {task}, found {spec.name}; use {' or '.join(able)}")
    return found


def load_method(resolved: ResolvedMethod, device: str = "cpu") -> Restorer:
    """Imports the method and loads its networks onto `device`."""
    restorer: Restorer = _imported(resolved.target)(resolved.coarse, device)
    if resolved.preset.detail is not None:
        restorer = _imported("bfr_models.methods.detailed:Detailed")(restorer, resolved, device)
    return restorer


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


_LATER: Mapping[str, Mapping[str, Any]] = {
    "estimator": {"self_ensemble": False},
    "difface": {"noise": "rows", "cover": 0.0, "self_ensemble": False},
    "clr_face": {"self_ensemble": False},
    "diffbfr": {
        "start": "lq", "cover": 0.0, "estimator": None, "self_ensemble": False,
        "second": "diffusion", "steps_flow": 4, "flow_share": 1.0, "flow": None,
    },
}  # fmt: skip
"""By method, options that came later, at the values that change nothing."""


def _as_before(described: dict[str, Any], method: str) -> dict[str, Any]:
    """Leaves those options out, so that runs from before they existed can go on."""
    later = _LATER.get(method, {})
    plain = {name: _as_before(value, method) if isinstance(value, dict) else value for name, value in described.items()}
    return {name: value for name, value in plain.items() if name not in later or later[name] != value}


def _typed(options: Any, changes: Mapping[str, object], method: str) -> dict[str, Any]:
    """The user's changes, each as the type of its default: eta 1 and eta 1.0 are the same setting."""
    defaults = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    typed = {}
    for option, value in changes.items():
        if option not in defaults:
            raise UsageError(
                f"unknown option {option!r} of {method}; known: {', '.join(defaults) or 'none'}"
                f"{did_you_mean(option, defaults)}"
            )
        expected = type(defaults[option])
        typed[option] = float(value) if expected is float and type(value) is int else value
        if defaults[option] is not None and type(typed[option]) is not expected:
            raise UsageError(f"expected option {option!r} of {method} to be {expected.__name__}, got {value!r}")
    return typed


def _weight(stem: str) -> dict[str, str]:
    path = require_weight(stem)
    return {"file": path.name, "sha256": read_card(path)["sha256"]}
