"""What DiffBFR's restoring models start from: a prior's weights, or their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bfr_models.errors import BfrError
from bfr_models.methods.diffbfr_presets import DIFFBFR
from bfr_models.networks.unet import UNet
from bfr_models.training.widen import widen
from bfr_models.weights.tensors import load_weights
from tests.diffbfr import PRIOR, SIZE, TINY, irm_high, irm_low, randomised, saved


@pytest.mark.parametrize("learn_sigma", [False, True])
def test_a_network_from_the_prior_says_what_the_prior_does_whatever_the_condition(
    learn_sigma: bool, tmp_path: Path
) -> None:
    prior_config = replace(PRIOR, learn_sigma=learn_sigma, unshuffle=1 if learn_sigma else 2)
    preset = replace(TINY, prior=prior_config, irm_high=replace(prior_config, condition_channels=6, learn_sigma=False))
    prior = randomised(prior_config, 1)
    path = saved(prior, tmp_path / "prior.safetensors")
    component = irm_high(preset)
    network = component.build().eval()
    component.initialise(network, path)
    x, condition, t = torch.randn(2, 3, SIZE, SIZE), torch.randn(2, 6, SIZE, SIZE), torch.tensor([3, 200])
    with torch.no_grad():
        rounded = {name: p.half().float() for name, p in prior.named_parameters()}
        expected = torch.func.functional_call(prior, rounded, (x, t))[:, :3]
        torch.testing.assert_close(network(torch.cat([x, condition], 1), t), expected, rtol=0, atol=1e-5)


def test_the_first_model_can_start_from_a_prior_of_another_size(tmp_path: Path) -> None:
    """Convolutions have none."""
    prior, network = randomised(PRIOR, 1), irm_low().build().eval()
    irm_low().initialise(network, saved(prior, tmp_path / "prior.safetensors"))
    load_weights(prior, tmp_path / "prior.safetensors")  # rounded
    x, condition, t = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16), torch.tensor([3, 900])
    with torch.no_grad():
        torch.testing.assert_close(network(torch.cat([x, condition], 1), t), prior(x, t), rtol=0, atol=1e-5)


def test_a_network_of_fewer_levels_starts_from_the_finest_of_the_prior(tmp_path: Path) -> None:
    deep = replace(PRIOR, channels=(16, 32, 32))
    preset = replace(
        TINY, prior=deep, irm_high=replace(deep, condition_channels=6), irm_low=replace(TINY.irm_low, channels=(16, 32))
    )
    prior, component = randomised(deep, 1), irm_low(preset)
    network = component.build()
    component.initialise(network, saved(prior, tmp_path / "prior.safetensors"))
    given, found = dict(prior.named_parameters()), dict(network.named_parameters())
    for mine, its in (("down_blocks.1.", "down_blocks.1."), ("up_blocks.0.", "up_blocks.1."), ("mid_", "mid_")):
        names = [name for name in found if name.startswith(f"net.{mine}")]
        assert names
        assert all(torch.equal(found[n], given[n.replace(mine, its)].half().float()) for n in names)


def test_a_prior_of_another_shape_is_refused(tmp_path: Path) -> None:
    wider = replace(TINY, irm_high=replace(TINY.irm_high, channels=(32, 32)))
    component, path = irm_low(wider), saved(randomised(PRIOR, 1), tmp_path / "prior.safetensors")
    with pytest.raises(BfrError, match=r"prior\.safetensors: net\.conv_in\.weight: expected shape"):
        component.initialise(component.build(), path)


def test_its_own_weights_are_loaded_as_they_are(tmp_path: Path) -> None:
    component, source = irm_high(), randomised(TINY.irm_high, 2)
    network = component.build()
    component.initialise(network, saved(source, tmp_path / "own.safetensors"))
    given = dict(source.named_parameters())
    assert all(torch.equal(p, given[name].half().float()) for name, p in network.named_parameters())


def test_the_paper_sized_network_can_be_made_from_difface_s() -> None:
    """Every parameter finds its source: `widen` raises where one does not. Without memory, so without values."""
    preset = DIFFBFR[-1]
    with torch.device("meta"):
        network, prior = UNet(preset.irm_high), UNet(preset.prior)
        widen(network, prior)
    assert dict(network.named_parameters()).keys() == dict(prior.named_parameters()).keys()
