"""The paper-sized networks on the meta device, uneven depths, and what half precision leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.methods.difface_presets import DIFFACE, ESTIMATOR512, PRIOR128, PRIOR256, PRIOR512
from bfr_models.networks import precision
from bfr_models.networks.configs import LaMaConfig, UNetConfig
from bfr_models.networks.lama import LaMa
from bfr_models.networks.precision import keep_float32
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.unet import UNet
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights

TINY = UNetConfig(sample_size=16, channels=(16, 32), attention_levels=(1,), head_dim=8, norm_groups=8)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these spend their time waiting for the other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trainable(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


class TestPaperSizedNetworks:
    """They have the published numbers of parameters, and faces of their size pass through."""

    @pytest.mark.parametrize(("config", "parameters"), [(PRIOR512, 159_788_454), (PRIOR256, 124_056_710)])
    @torch.inference_mode()
    def test_priors(self, config: UNetConfig, parameters: int) -> None:
        with torch.device("meta"):
            network = UNet(config)
            output = network(torch.empty(2, 3, config.sample_size, config.sample_size), torch.empty(2))
        assert trainable(network) == parameters
        assert output.shape == (2, 6, config.sample_size, config.sample_size)

    @torch.inference_mode()
    def test_estimators(self) -> None:
        with torch.device("meta"):
            swinir, lama = SwinIR(ESTIMATOR512), LaMa(LaMaConfig())
            assert swinir(torch.empty(2, 3, 512, 512)).shape == (2, 3, 512, 512)
            assert lama(torch.empty(2, 3, 256, 256), torch.empty(2, 1, 256, 256)).shape == (2, 3, 256, 256)
        assert (trainable(swinir), trainable(lama)) == (15_792_587, 50_975_875)


class TestDepths:
    def test_one_number_for_all_levels_or_one_for_each_is_the_same_network(self) -> None:
        one, each = UNet(replace(TINY, layers_per_block=2)), UNet(replace(TINY, layers_per_block=(2, 2)))
        shapes = [{name: p.shape for name, p in network.named_parameters()} for network in (one, each)]
        assert shapes[0] == shapes[1]

    @torch.inference_mode()
    def test_each_level_has_its_own_number_and_one_more_on_the_way_up(self) -> None:
        network = UNet(replace(TINY, channels=(16, 32, 32), layers_per_block=(3, 1, 2)))
        assert [len(block.resnets) for block in network.net.down_blocks] == [3, 1, 2]
        assert [len(block.resnets) for block in network.net.up_blocks] == [3, 2, 4]
        assert network(torch.rand(2, 3, 16, 16), torch.tensor([5, 6])).shape == (2, 3, 16, 16)

    def test_the_shipped_prior_loads_strictly_into_the_generalised_network(self) -> None:
        network = UNet(PRIOR128)
        assert trainable(network) == 5_026_796
        load_weights(network, require_weight(DIFFACE[0].weights["prior"]))

    @torch.inference_mode()
    def test_a_learned_variance_comes_after_the_noise(self) -> None:
        plain, learned = UNet(TINY), UNet(replace(TINY, learn_sigma=True))
        assert (plain.net.conv_out.out_channels, learned.net.conv_out.out_channels) == (3, 6)
        network = UNet(replace(TINY, learn_sigma=True, unshuffle=2, sample_size=32))
        for parameter in (network.net.conv_out.weight, network.net.conv_out.bias):
            parameter[12:] = 0
        eps, v = network(torch.rand(1, 3, 32, 32), torch.tensor([5])).chunk(2, dim=1)
        assert (eps != 0).any() and (v == 0).all()


class TestHalfPrecision:
    @staticmethod
    def recorded(monkeypatch: pytest.MonkeyPatch, network: nn.Module, dtype: torch.dtype, *inputs: Tensor) -> Any:
        """{operation: dtypes it computed in}, and the output; linear layers apart by whether time enters them."""
        seen: dict[str, set[torch.dtype]] = {}
        time_weights = {id(p) for name, p in network.named_parameters() if "time_emb" in name}

        def spy(name: str) -> None:
            operation = getattr(F, name)

            def wrapper(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                result = operation(x, *args, **kwargs)
                is_time = name == "linear" and (id(args[0]) in time_weights or args[0].dtype == torch.float64)
                # a linear layer's result tells what autocast made of it; a norm computes in its input's dtype
                computed = result.dtype if name == "linear" else x.dtype
                seen.setdefault("time" if is_time else name, set()).add(computed)
                return result

            monkeypatch.setattr(F, name, wrapper)

        for name in ("group_norm", "layer_norm", "linear"):
            spy(name)
        with torch.inference_mode(), torch.autocast("cpu", dtype):
            output = network(*inputs)
        monkeypatch.undo()
        return seen, output

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_norms_stay_in_float32_and_the_time_embedding_is_in_float64(
        self, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
    ) -> None:
        inputs = torch.rand(2, 3, 16, 16), torch.tensor([5, 300])
        network = UNet(replace(TINY, attention_levels=(0, 1)))
        by_autocast, _ = self.recorded(monkeypatch, network, dtype, *inputs)
        assert dtype in by_autocast["group_norm"] and by_autocast["time"] == {dtype}  # why it is needed
        seen, output = self.recorded(monkeypatch, keep_float32(network), dtype, *inputs)
        assert seen["group_norm"] == {torch.float32} and seen["time"] == {torch.float64}
        assert seen["linear"] == {dtype} and output.dtype == dtype

    def test_layer_norms_stay_in_float32(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = replace(ESTIMATOR512, embed_dim=12, depths=(2,), num_heads=3, window_size=4, img_size=8, num_feat=8)
        network = keep_float32(SwinIR(config).eval())
        seen, output = self.recorded(monkeypatch, network, torch.bfloat16, torch.rand(1, 3, 64, 64))
        assert seen == {"layer_norm": {torch.float32}, "linear": {torch.bfloat16}}
        assert output.dtype == torch.float32  # the mean that is added last

    @torch.inference_mode()
    def test_without_autocast_nothing_changes_but_rounding(self) -> None:
        network, inputs = UNet(TINY), (torch.rand(2, 3, 16, 16), torch.tensor([5, 300]))
        before, names = network(*inputs), list(network.state_dict())
        torch.testing.assert_close(keep_float32(network)(*inputs), before, rtol=0, atol=1e-5)
        assert list(network.state_dict()) == names
        assert any(isinstance(module, precision._GroupNorm32) for module in network.modules())

    @torch.inference_mode()
    def test_half_precision_is_close(self) -> None:
        """bf16 keeps 8 bits: a result of order 1 is off by some 2^-8 per layer that adds to it."""
        torch.manual_seed(0)
        network, inputs = (
            UNet(replace(TINY, layers_per_block=2)),
            (torch.randn(4, 3, 16, 16), torch.arange(0, 1000, 250)),
        )
        exact = network(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = keep_float32(network)(*inputs)
        assert float((half.float() - exact).square().mean().sqrt()) <= 4 * 2**-8 * float(exact.std())
