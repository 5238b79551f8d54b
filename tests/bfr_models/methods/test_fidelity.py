"""The fidelity dial: its middle is the preset, higher is closer to the input, and it contradicts nothing in silence."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.errors import UsageError
from bfr_models.methods.fidelity import DIALS, fidelity_options
from bfr_models.methods.preset import Preset
from bfr_models.pixels import to_tensor
from bfr_models.registry import load_method, methods, resolve_method
from bfr_models.types import FaceBatch
from tests.support import portrait

PLACES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
every_dial = pytest.mark.parametrize(("method", "name"), DIALS, ids=" ".join)


def preset_of(method: str, name: str) -> Preset:
    return next(preset for preset in methods()[method].presets if preset.name == name)


@every_dial
def test_the_middle_of_the_dial_is_the_preset(method: str, name: str) -> None:
    preset = preset_of(method, name)
    assert replace(preset.options, **fidelity_options(method, name, preset.options, 0.5, {})) == preset.options


@pytest.mark.parametrize("method", ["difface", "diffbfr", "clr_face"])
def test_without_the_dial_or_in_its_middle_a_run_is_the_same_as_before(method: str) -> None:
    untouched = resolve_method(method)
    assert untouched.options == untouched.preset.options
    assert resolve_method(method, fidelity=0.5).fingerprint == untouched.fingerprint
    assert resolve_method(method, fidelity=0.6).fingerprint != untouched.fingerprint


@every_dial
def test_each_place_is_possible_and_starts_no_higher_than_the_one_before(method: str, name: str) -> None:
    preset = preset_of(method, name)
    found = [fidelity_options(method, name, preset.options, place, {}) for place in PLACES]
    for options in found:
        preset.check(replace(preset.options, **options))
    for option in DIALS[method, name].free:
        values = [options[option] for options in found]
        assert all(later <= earlier for earlier, later in pairwise(values)) and values[0] > values[-1]


def test_what_the_dial_sets_is_not_set_twice() -> None:
    with pytest.raises(
        UsageError, match=r"either fidelity or steps, found both: the dial sets start_timestep, cover, steps"
    ):
        resolve_method("difface", options={"steps": 2}, fidelity=0.7)
    with pytest.raises(UsageError, match="either fidelity or start_timestep"):
        resolve_method("difface", options={"start_timestep": 50}, fidelity=0.7)
    assert resolve_method("difface", options={"precision": "bf16"}, fidelity=0.7).options.start_timestep < 100


@pytest.mark.parametrize(("method", "name"), [("passthrough", None), ("estimator", None)])
def test_a_method_without_a_dial_says_so(method: str, name: str | None) -> None:
    with pytest.raises(UsageError, match=rf"found {method} with face128, .*with one: difface, diffbfr, clr_face$"):
        resolve_method(method, name, fidelity=0.7)


@pytest.mark.parametrize(("method", "places"), [("difface", (0.0, 1.0)), ("diffbfr", (0.0, 0.5, 1.0))])
def test_higher_is_closer_to_where_the_chains_start(method: str, places: tuple[float, ...]) -> None:
    """That is the regression network's face."""
    lq = to_tensor(degrade(portrait(3, 128), get_preset("gfpgan_extreme"), 3))[None]
    batch = FaceBatch(("a",), lq, (1,))
    start = load_method(resolve_method("estimator")).restore(batch).images
    restored = [load_method(resolve_method(method, fidelity=place)).restore(batch).images for place in places]
    distances = [float((images - start).square().mean()) for images in restored]
    assert distances == sorted(distances, reverse=True), distances
