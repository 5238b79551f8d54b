"""Draft, standard and best: standard is the preset, more effort is more calls, nothing is contradicted in silence."""

from __future__ import annotations

import dataclasses

import pytest

from bfr_models.errors import UsageError
from bfr_models.methods.effort import EFFORTS, OPTIONS
from bfr_models.registry import resolve_method

CALLS = ("steps", "steps_high", "steps_texture")
every_preset = pytest.mark.parametrize(("method", "preset"), OPTIONS, ids=" ".join)


def calls(method: str, preset: str, effort: str, fidelity: float | None = None) -> int:
    options = resolve_method(method, preset, fidelity=fidelity, effort=effort).options
    return sum(getattr(options, name, 0) for name in CALLS)


@every_preset
def test_standard_is_the_preset_and_other_options_are_runs_of_their_own(method: str, preset: str) -> None:
    prints = {effort: resolve_method(method, preset, effort=effort).fingerprint for effort in EFFORTS}
    assert prints["standard"] == resolve_method(method, preset).fingerprint != prints["draft"]
    assert (prints["best"] == prints["standard"]) == (not OPTIONS[method, preset]["best"])


@every_preset
def test_more_effort_is_more_calls_and_changes_nothing_else(method: str, preset: str) -> None:
    assert calls(method, preset, "draft") < calls(method, preset, "standard") <= calls(method, preset, "best")
    for effort in EFFORTS:
        of_effort, own = resolve_method(method, preset, effort=effort), resolve_method(method, preset)
        same = {name: getattr(own.options, name) for name in OPTIONS[method, preset].get(effort, {})}
        assert dataclasses.replace(of_effort.options, **same) == own.options


def test_asked_for_by_its_numbers_it_is_the_same_run() -> None:
    options = {"steps": 1, "self_ensemble": False}
    assert resolve_method("difface", options=options) == resolve_method("difface", effort="draft")


@pytest.mark.parametrize("fidelity", [0.0, 0.6, 1.0])
def test_it_goes_with_the_fidelity_dial(fidelity: float) -> None:
    """The chain starts where the dial says, whatever the number of its calls."""
    of_dial = resolve_method("difface", fidelity=fidelity).options
    draft = resolve_method("difface", fidelity=fidelity, effort="draft").options
    assert (draft.start_timestep, draft.steps) == (of_dial.start_timestep, 1)
    assert resolve_method("difface", fidelity=fidelity, effort="best").options == of_dial


def test_what_it_sets_is_not_set_twice() -> None:
    with pytest.raises(UsageError, match=r"either quality draft or steps, found both: it sets steps, self.*; leave"):
        resolve_method("difface", options={"steps": 3}, effort="draft")
    assert resolve_method("difface", options={"steps": 3}, effort="standard").options.steps == 3


@pytest.mark.parametrize(("method", "preset"), [("estimator", "face128"), ("passthrough", "face128")])
def test_what_was_not_measured_is_refused(method: str, preset: str) -> None:
    assert resolve_method(method, preset, effort="standard") == resolve_method(method, preset)
    with pytest.raises(UsageError, match=rf"expected quality standard for {method} with {preset}, found best"):
        resolve_method(method, preset, effort="best")
