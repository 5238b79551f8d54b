"""Aged prints: what each kind of damage does, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from bfr_models.degradation import ageing
from bfr_models.degradation.ageing import age
from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.pixels import Uint8Image
from tests.support import portrait

KINDS = [damage.__name__.strip("_") for _, damage in ageing._DAMAGES]


def only(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all damages this one, always."""
    found = [damage for _, damage in ageing._DAMAGES if damage.__name__ == f"_{kind}"]
    monkeypatch.setattr(ageing, "_DAMAGES", tuple((1.0, damage) for damage in found))


@pytest.mark.parametrize("kind", KINDS)
class TestEachKind:
    def test_one_seed_is_one_damage_and_grey_stays_grey(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        only(kind, monkeypatch)
        grey = portrait(0)[..., :1].repeat(3, axis=-1)
        aged = [age(grey, np.random.default_rng(seed)) for seed in (0, 0, 1)]
        assert (aged[0] == aged[1]).all() and (aged[0] != aged[2]).any() and (aged[0] != grey).any()
        assert (aged[0] == aged[0][..., :1]).all()
        assert aged[0].shape == grey.shape and aged[0].dtype == np.uint8

    def test_lengths_scale_with_the_face(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The share of pixels that are changed a lot does not depend on the size of the picture."""
        only(kind, monkeypatch)
        shares = [np.mean([changed(side, seed) for seed in range(40)]) for side in (128, 256)]
        assert shares[0] == pytest.approx(shares[1], rel=0.3, abs=0.01)


def changed(side: int, seed: int) -> float:
    grey = np.full((side, side, 3), 128, np.uint8)
    return float((np.abs(age(grey, np.random.default_rng(seed)).astype(int) - grey) > 16).mean())


def test_a_halftone_leaves_black_and_white(monkeypatch: pytest.MonkeyPatch) -> None:
    only("halftone", monkeypatch)
    flat: list[Uint8Image] = [np.full((64, 64, 3), level, np.uint8) for level in (0, 128, 255)]
    black, middle, white = (age(face, np.random.default_rng(0)) for face in flat)
    assert (black == 0).all() and (white == 255).all() and middle.std() > 5
    assert middle.mean() == pytest.approx(128, abs=5)


@pytest.mark.parametrize("kind", ["scratches", "dust"])
def test_between_scratches_and_specks_the_print_is_as_it_was(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(kind, monkeypatch)
    face = portrait(0, 128)
    assert all((age(face, np.random.default_rng(seed)) == face).all(axis=-1).mean() > 0.6 for seed in range(20))


def test_some_prints_have_hardly_aged() -> None:
    """None of the damages: 0.75 x 0.4 x 0.6 x 0.6, about a ninth."""
    face = portrait(0)
    untouched = np.mean([(age(face, np.random.default_rng(seed)) == face).all() for seed in range(600)])
    assert untouched == pytest.approx(0.108, abs=5 * np.sqrt(0.108 * 0.892 / 600))


def test_the_preset_archive_ages_before_it_degrades(monkeypatch: pytest.MonkeyPatch) -> None:
    face, preset = portrait(0), get_preset("archive")
    monkeypatch.setattr("bfr_models.degradation.degrade.age", lambda image, rng: np.full_like(image, 255))
    assert degrade(face, preset, 0).mean() > 200
    assert degrade(face, get_preset("gfpgan"), 0).mean() < 200
