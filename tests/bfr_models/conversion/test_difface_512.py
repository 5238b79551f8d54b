"""Published checkpoints become ours without loss: the same outputs, every tensor used, everything else refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from bfr_models.conversion.difface import (
    convert_estimator,
    convert_inpaint_estimator,
    convert_inpaint_prior,
    convert_lama,
    convert_prior,
    convert_swinir,
    convert_unet,
)
from bfr_models.errors import UsageError
from bfr_models.methods.difface_presets import PRIOR512
from bfr_models.networks.configs import LaMaConfig, SwinIRConfig, UNetConfig
from bfr_models.networks.lama import LaMa
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.unet import UNet
from bfr_models.weights.catalogue import CATALOGUE
from tests.bfr_models.conversion import published_networks as published
from tests.bfr_models.conversion.published_networks import GuidedDiffusion, Shapes

SMALL = GuidedDiffusion(32, 16, (1, 2, 2), (1, 2, 3), (16, 8), 8, groups=8)
SMALL_OURS = UNetConfig(32, (16, 32, 32), (1, 2, 3), (1, 2), head_dim=8, norm_groups=8, learn_sigma=True)
EVEN = GuidedDiffusion(32, 16, (1, 2), (2, 2), (16,), 16, groups=8)
EVEN_OURS = UNetConfig(32, (16, 32), 2, (1,), head_dim=16, norm_groups=8, learn_sigma=True)
TINY_SWINIR = SwinIRConfig(
    unshuffle=2, embed_dim=12, depths=(2,), num_heads=3, window_size=4, num_feat=8, drop_path=0.0, img_size=8
)

FULL_SIZE: list[tuple[Callable[[Any], dict[str, Tensor]], Shapes]] = [
    (convert_prior, published.unet_shapes(published.FFHQ512)),
    (convert_inpaint_prior, published.unet_shapes(published.FFHQ256)),
    (convert_estimator, published.swinir_shapes()),
    (convert_inpaint_estimator, published.lama_shapes()),
]
every_checkpoint = pytest.mark.parametrize(
    ("convert", "shapes"), FULL_SIZE, ids=["prior512", "prior256", "swinir", "lama"]
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these spend their time waiting for the other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def nothing(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, device="meta")


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    return {name: nothing(shape) for name, shape in shapes.items()}


def pictures(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


class TestUNet:
    @pytest.mark.parametrize(("theirs", "ours"), [(SMALL, SMALL_OURS), (EVEN, EVEN_OURS)], ids=["512", "256"])
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
    @torch.inference_mode()
    def test_the_converted_network_gives_the_same_output(
        self, theirs: GuidedDiffusion, ours: UNetConfig, dtype: torch.dtype, tolerance: float
    ) -> None:
        state = published.random_state(published.unet_shapes(theirs), seed=0, dtype=dtype)
        network = UNet(ours).to(dtype)
        network.load_state_dict(convert_unet(state, ours))
        x, timesteps = pictures(3, 3, 32, 32, dtype=dtype), torch.tensor([0, 396, 996])
        expected = published.unet(state, theirs, x, timesteps)
        assert expected.shape == (3, 6, 32, 32) and 0.1 < expected.std() < 10
        torch.testing.assert_close(network(x, timesteps), expected, rtol=0, atol=tolerance)

    def test_the_published_512_px_network_has_the_published_size(self) -> None:
        shapes = published.unet_shapes(published.FFHQ512)
        assert len(shapes) == 630
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 159_788_454
        strided = [name for name in shapes if name.endswith("op.weight")]
        assert strided == [f"input_blocks.{i}.0.op.weight" for i in (2, 5, 8, 11, 14, 18)]
        assert {int(name.split(".")[1]) for name in shapes if name.startswith("output_blocks")} == set(range(23))

    @torch.inference_mode()
    def test_queries_keys_and_values_are_told_apart_head_by_head(self) -> None:
        """Row r of the published qkv holds its own number."""
        shapes = published.unet_shapes(SMALL)
        state = published.random_state(shapes, seed=0)
        state["middle_block.1.qkv.bias"] = torch.arange(96.0)
        converted = convert_unet(state, SMALL_OURS)
        q, k, v = (converted[f"net.mid_block.attentions.0.to_{name}.bias"].view(4, 8) for name in "qkv")
        first = 24 * torch.arange(4.0)[:, None] + torch.arange(8)
        assert torch.equal(q, first) and torch.equal(k, first + 8) and torch.equal(v, first + 16)

    @pytest.mark.slow
    @torch.inference_mode()
    def test_the_512_px_network_gives_the_same_output_at_full_width(self) -> None:
        """All its weights, on a picture of 64 px: a single one at the coarsest level."""
        state = published.random_state(published.unet_shapes(published.FFHQ512), seed=0)
        x, timesteps = pictures(1, 3, 64, 64), torch.tensor([396])
        expected = published.unet(state, published.FFHQ512, x, timesteps)
        with torch.device("meta"):
            network = UNet(PRIOR512)
        network.load_state_dict(convert_prior(state), assign=True)
        torch.testing.assert_close(network(x, timesteps), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=str)
@torch.inference_mode()
def test_a_converted_lama_gives_the_same_output(dtype: torch.dtype, tolerance: float) -> None:
    state = published.random_state(published.lama_shapes(8, 2, 2, 0.75), seed=0, dtype=dtype)
    config = LaMaConfig(channels=8, num_downsamples=2, num_blocks=2)
    network = LaMa(config).to(dtype)
    network.load_state_dict(convert_lama(state, config))
    picture, mask = torch.rand(2, 3, 32, 40, dtype=dtype), (torch.rand(2, 1, 32, 40) < 0.2).to(dtype)
    expected = published.lama(state, 2, 2, picture, mask)
    assert expected.std() > 0.01
    torch.testing.assert_close(network(picture, mask), expected, rtol=0, atol=tolerance)


def test_a_converted_swinir_keeps_its_parameters_and_drops_its_buffers() -> None:
    network = SwinIR(TINY_SWINIR)
    state = network.state_dict()
    converted = convert_swinir(state, TINY_SWINIR)
    assert list(converted) == [name for name, _ in network.named_parameters()]
    assert all(torch.equal(converted[name], state[name]) for name in converted)


def test_the_published_swinir_has_the_published_size() -> None:
    shapes = published.swinir_shapes()
    parameters = [name for name in shapes if not name.endswith(("attn_mask", "relative_position_index"))]
    assert len(shapes) == 732
    assert sum(torch.Size(shapes[name]).numel() for name in parameters) == 15_792_587


class TestWhatIsAccepted:
    """At full size, on the meta device: names and shapes without their numbers."""

    @every_checkpoint
    @pytest.mark.parametrize("nested", [False, True], ids=["bare", "state_dict"])
    @pytest.mark.parametrize("prefix", ["", "module."], ids=["", "wrapped"])
    def test_every_layout_of_a_checkpoint(
        self, convert: Callable[[Any], Any], shapes: Shapes, nested: bool, prefix: str
    ) -> None:
        state = {prefix + name: tensor for name, tensor in on_meta(shapes).items()}
        converted = convert({"state_dict": state, "iters_start": 5} if nested else state)
        dropped = ("attn_mask", "relative_position_index", "num_batches_tracked")
        kept = sum(torch.Size(shape).numel() for name, shape in shapes.items() if not name.endswith(dropped))
        assert sum(tensor.numel() for tensor in converted.values()) == kept

    @every_checkpoint
    def test_a_missing_tensor_is_named(self, convert: Callable[[Any], Any], shapes: Shapes) -> None:
        for name in list(shapes)[5::97]:
            if not name.endswith(("attn_mask", "relative_position_index", "num_batches_tracked")):
                with pytest.raises(UsageError, match=r"missing \S*(weight|bias|table|running)"):
                    convert(on_meta({other: shape for other, shape in shapes.items() if other != name}))

    @every_checkpoint
    @pytest.mark.parametrize("extra", ["middle_block.3.weight", "some.attn_mask", "attn.relative_position_index"])
    def test_an_unknown_tensor_is_named(self, convert: Callable[[Any], Any], shapes: Shapes, extra: str) -> None:
        with pytest.raises(UsageError, match=f"missing none, unexpected {extra}, of another shape none"):
            convert(on_meta({**shapes, extra: (3,)}))

    @every_checkpoint
    def test_a_tensor_of_another_shape_is_named(self, convert: Callable[[Any], Any], shapes: Shapes) -> None:
        name = next(name for name in reversed(shapes) if name.endswith("weight"))
        with pytest.raises(UsageError, match=r"of another shape \S+ \(7, 3\) for \(.*\); is it the file"):
            convert(on_meta({**shapes, name: (7, 3)}))

    def test_attention_of_another_head_size_is_named(self) -> None:
        shapes = published.unet_shapes(published.FFHQ512)
        with pytest.raises(
            UsageError, match=r"missing net\.mid_block.*unexpected net\.mid_block\.attentions\.0\.to_qkv"
        ):
            convert_prior(on_meta({**shapes, "middle_block.1.qkv.weight": (100, 512, 1)}))

    def test_the_checkpoint_of_another_component_is_refused_in_a_few_words(self) -> None:
        with pytest.raises(UsageError, match=r"and 7\d\d more") as refused:
            convert_prior(on_meta(published.swinir_shapes()))
        assert len(str(refused.value)) < 1500

    def test_a_half_wrapped_checkpoint_is_refused(self) -> None:
        state = on_meta(published.unet_shapes(published.FFHQ512))
        name = "out.2.bias"
        with pytest.raises(UsageError, match=r"missing net\.conv_out\.bias, unexpected module\.out\.2\.bias"):
            convert_prior({f"module.{key}" if key == name else key: tensor for key, tensor in state.items()})

    @pytest.mark.parametrize("state", [{"state_dict": {"step": 5}}, {"ema": {}, "step": 5}], ids=["step", "trainer"])
    def test_other_things_than_tensors_are_refused(self, state: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match="expected a checkpoint of tensors by name"):
            convert_prior(state)


def test_the_catalogue_names_these_converters() -> None:
    converters = {
        "difface/ffhq512/prior": convert_prior,
        "difface/ffhq512/estimator": convert_estimator,
        "difface/ffhq512-mse/estimator": convert_estimator,
        "difface/inpaint256/prior": convert_inpaint_prior,
        "difface/inpaint256/estimator": convert_inpaint_estimator,
    }
    named = {entry.name: entry.converter for entry in CATALOGUE if entry.group == "difface"}
    assert named.keys() == converters.keys()
    for name, target in named.items():
        module, _, function = (target or "").partition(":")
        assert getattr(importlib.import_module(module), function) is converters[name]
