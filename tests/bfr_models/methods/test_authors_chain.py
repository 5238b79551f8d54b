"""The authors' whole procedure, with their networks at their full size, against what it gives tensor by tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bfr_models.conversion.difface import convert_estimator, convert_prior
from bfr_models.registry import load_method, resolve_method
from bfr_models.types import FaceBatch
from bfr_models.weights.tensors import save_weights
from tests.bfr_models.methods import authors_chain as theirs


@pytest.mark.parametrize(
    "steps", [pytest.param(20, marks=pytest.mark.long), pytest.param(100, marks=pytest.mark.minutes)]
)
@torch.inference_mode()
def test_the_full_size_networks_give_the_stored_faces(
    steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for rounding, of calls of a network in float32 and in another layout of memory: 1e-4 allowed, a 78th of a
    grey level."""
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    weights = {"estimator": convert_estimator(theirs.estimator_state()), "prior": convert_prior(theirs.prior_state())}
    for name, state in weights.items():
        save_weights(state, {}, tmp_path / f"difface-ffhq512-{name}.safetensors")
    del weights, state
    batch = FaceBatch(("a", "b"), theirs.lq_faces() * 2 - 1, (theirs.SEED,) * 2, places=(0, 1))
    expected, _ = theirs.stored()[steps]
    resolved = resolve_method("difface", "ffhq512", {"noise": "authors", "steps": steps})
    restorer = load_method(replace(resolved, preset=replace(resolved.preset, size=theirs.SIZE)))
    found = restorer.restore(batch).images
    assert expected.std() > 0.1 and (expected.abs() < 0.99).float().mean() > 0.5
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=0, atol=1e-4)


def test_the_stored_faces_are_small_and_of_both_lengths() -> None:
    for face, rounding in theirs.stored().values():
        assert face.shape == (2, 3, theirs.SIZE, theirs.SIZE) and 0 < rounding < 1e-4
    assert theirs.FILE.stat().st_size < 200_000
