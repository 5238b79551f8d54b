"""A prior that begins as a shallower one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bfr_models.errors import BfrError, UsageError
from bfr_models.methods.difface_presets import DIFFACE
from bfr_models.networks.configs import UNetConfig
from bfr_models.networks.unet import UNet
from bfr_models.training.component import NO_AUXILIARY, LossWeights, Recipe
from bfr_models.training.deepen import deepen
from bfr_models.training.difface import Prior
from bfr_models.weights.tensors import parameters_of, save_weights

SHALLOW = UNetConfig(sample_size=16, channels=(8, 16, 16), attention_levels=(2,), head_dim=8, norm_groups=8)


@pytest.mark.parametrize(
    ("layers", "attention_levels"),
    [(1, (2,)), ((1, 2, 1), (2,)), ((1, 1, 1), (1, 2)), ((2, 3, 4), (0, 1, 2))],
    ids=["the same", "a block", "attention", "all"],
)
def test_it_computes_what_the_shallow_one_does(
    layers: int | tuple[int, ...], attention_levels: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    shallow = UNet(SHALLOW).eval()
    deep = UNet(replace(SHALLOW, layers_per_block=layers, attention_levels=attention_levels)).eval()
    deepen(deep, parameters_of(shallow))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([7, 300])
    torch.testing.assert_close(deep(x, t), shallow(x, t), rtol=1e-5, atol=1e-5)


def test_every_new_block_learns() -> None:
    shallow, deep = UNet(SHALLOW), UNet(replace(SHALLOW, layers_per_block=2, attention_levels=(1, 2)))
    deepen(deep, parameters_of(shallow))
    deep(torch.randn(2, 3, 16, 16), torch.tensor([7, 300])).square().mean().backward()
    for name, parameter in deep.named_parameters():
        if name.endswith(("conv2.weight", "to_out.0.weight")):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_other_widths_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"expected net\.conv_in\.weight of shape \(16, 3, 3, 3\) .*, found \(8, 3, 3, 3\)"
    ):
        deepen(UNet(replace(SHALLOW, channels=(16, 16, 16))), parameters_of(UNet(SHALLOW)))


def test_a_deeper_network_is_refused() -> None:
    with pytest.raises(UsageError, match="expected initial weights of a shallower network"):
        deepen(UNet(SHALLOW), parameters_of(UNet(replace(SHALLOW, layers_per_block=2))))


def test_training_the_prior_starts_from_a_shallower_ones_file(tmp_path: Path) -> None:
    preset = replace(DIFFACE[0], prior=replace(SHALLOW, layers_per_block=2))
    shallow, path = UNet(SHALLOW).eval(), tmp_path / "shallow.safetensors"
    save_weights(parameters_of(shallow), {}, path)
    prior = Prior(preset, NO_AUXILIARY, Recipe(16, (), 1), LossWeights())
    network = prior.build().eval()
    prior.initialise(network, path)
    x, t = torch.randn(1, 3, 16, 16), torch.tensor([50])
    torch.testing.assert_close(network(x, t), shallow(x, t), rtol=0, atol=0.01)  # the file is of half precision

    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(BfrError, match="expected sha256"):
        prior.initialise(network, path)
