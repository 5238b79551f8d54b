"""Latent diffusion's VQGAN layout: converted weights compute what a network of that layout computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.conversion.vqgan import convert_first_stage, convert_vqgan
from bfr_models.errors import UsageError
from bfr_models.networks.configs import VQGANConfig
from bfr_models.networks.vqgan import VQGAN

GROUPS = 4
TINY = VQGANConfig((8, 12, 16), 2, codes=32, norm_groups=GROUPS)
State = dict[str, Tensor]


def published(c: VQGANConfig, dtype: torch.dtype = torch.float32, device: str = "cpu") -> State:  # noqa: C901
    """A checkpoint of that layout: names and shapes as latent diffusion's model.py gives them."""
    state: State = {}

    def conv(name: str, o: int, i: int, k: int) -> None:
        scale = 1 if device == "meta" else (i * k * k) ** -0.5
        state[f"{name}.weight"] = torch.randn(o, i, k, k, dtype=dtype, device=device) * scale
        state[f"{name}.bias"] = torch.randn(o, dtype=dtype, device=device) * 0.1

    def norm(name: str, n: int) -> None:
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(n, dtype=dtype, device=device)
        state[f"{name}.bias"] = 0.2 * torch.randn(n, dtype=dtype, device=device)

    def block(name: str, i: int, o: int) -> None:
        (
            norm(f"{name}.norm1", i),
            conv(f"{name}.conv1", o, i, 3),
            norm(f"{name}.norm2", o),
            conv(f"{name}.conv2", o, o, 3),
        )
        if i != o:
            conv(f"{name}.nin_shortcut", o, i, 1)

    def middle(half: str, n: int) -> None:
        block(f"{half}.mid.block_1", n, n), norm(f"{half}.mid.attn_1.norm", n), block(f"{half}.mid.block_2", n, n)
        for layer in ("q", "k", "v", "proj_out"):
            conv(f"{half}.mid.attn_1.{layer}", n, n, 1)

    conv("encoder.conv_in", c.channels[0], 3, 3)
    before = c.channels[0]
    for level, channels in enumerate(c.channels):
        for layer in range(c.layers_per_block):
            block(f"encoder.down.{level}.block.{layer}", before, channels)
            before = channels
        if level < len(c.channels) - 1:
            conv(f"encoder.down.{level}.downsample.conv", channels, channels, 3)
    middle("encoder", before), norm("encoder.norm_out", before), conv("encoder.conv_out", 3, before, 3)
    conv("decoder.conv_in", before, 3, 3), middle("decoder", before)
    for level in reversed(range(len(c.channels))):
        for layer in range(c.layers_per_block + 1):
            block(f"decoder.up.{level}.block.{layer}", before, c.channels[level])
            before = c.channels[level]
        if level:
            conv(f"decoder.up.{level}.upsample.conv", before, before, 3)
    norm("decoder.norm_out", before), conv("decoder.conv_out", 3, before, 3)
    conv("quant_conv", 3, 3, 1), conv("post_quant_conv", 3, 3, 1)
    state["quantize.embedding.weight"] = torch.randn(c.codes, 3, dtype=dtype, device=device)
    return state


class Published:
    """What that checkpoint computes, from its tensors by name."""

    def __init__(self, state: State, c: VQGANConfig) -> None:
        self.w, self.c = state, c

    def conv(self, name: str, x: Tensor, **how: Any) -> Tensor:
        weight = self.w[f"{name}.weight"]
        how.setdefault("padding", weight.shape[-1] // 2)
        return F.conv2d(x, weight, self.w[f"{name}.bias"], **how)

    def norm(self, name: str, x: Tensor) -> Tensor:
        return F.group_norm(x, GROUPS, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps=1e-6)

    def block(self, name: str, x: Tensor) -> Tensor:
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        return h + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.w else x)

    def middle(self, half: str, x: Tensor) -> Tensor:
        x = self.block(f"{half}.mid.block_1", x)
        name, h = f"{half}.mid.attn_1", self.norm(f"{half}.mid.attn_1.norm", x)
        q, k, v = (self.conv(f"{name}.{layer}", h).flatten(2) for layer in "qkv")
        attention = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(-1)
        x = x + self.conv(f"{name}.proj_out", (v @ attention.transpose(1, 2)).view_as(x))
        return self.block(f"{half}.mid.block_2", x)

    def encode(self, x: Tensor) -> Tensor:
        h = self.conv("encoder.conv_in", x)
        for level in range(len(self.c.channels)):
            for layer in range(self.c.layers_per_block):
                h = self.block(f"encoder.down.{level}.block.{layer}", h)
            if level < len(self.c.channels) - 1:  # padded at the right and below
                h = self.conv(f"encoder.down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2, padding=0)
        h = F.silu(self.norm("encoder.norm_out", self.middle("encoder", h)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", h))

    def decode(self, z: Tensor) -> Tensor:
        places = z.movedim(1, -1)
        codebook = self.w["quantize.embedding.weight"]
        nearest = (places[..., None, :] - codebook).square().sum(-1).argmin(-1)
        h = self.conv("post_quant_conv", codebook[nearest].movedim(-1, 1))
        h = self.middle("decoder", self.conv("decoder.conv_in", h))
        for level in reversed(range(len(self.c.channels))):
            for layer in range(self.c.layers_per_block + 1):
                h = self.block(f"decoder.up.{level}.block.{layer}", h)
            if level:
                h = self.conv(f"decoder.up.{level}.upsample.conv", F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", h)))


def test_the_converted_network_computes_what_the_published_one_does() -> None:
    """In float64, so that the codes chosen are the same ones."""
    torch.manual_seed(0)
    state = published(TINY, torch.float64)
    network = VQGAN(TINY).double()
    network.load_state_dict(convert_vqgan(state, TINY))  # strict
    image = torch.rand(2, 3, 32, 32, dtype=torch.float64) * 2 - 1
    theirs = Published(state, TINY)
    with torch.no_grad():
        latent = network.encode(image)
        torch.testing.assert_close(latent, theirs.encode(image), rtol=0, atol=1e-10)
        assert latent.shape == (2, 3, 8, 8)
        torch.testing.assert_close(
            network.decode(network.quantise(latent)[0]), theirs.decode(latent), rtol=0, atol=1e-5
        )  # codes are found in float32, and then exact


def test_a_vq_f4_checkpoint_fits_and_what_its_training_left_in_it_is_dropped() -> None:
    """On the device without memory: names and shapes are what is checked."""
    config = VQGANConfig()
    state = published(config, device="meta")
    state |= {
        "loss.discriminator.main.0.weight": torch.zeros(1),
        "loss.perceptual_loss.lin0.model.1.weight": torch.zeros(1),
    }
    converted = convert_first_stage({"state_dict": state})  # type: ignore[dict-item]
    with torch.device("meta"):
        wanted = VQGAN(config).state_dict()
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in wanted.items()}
    assert sum(t.numel() for t in converted.values()) == 55_322_782


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.conv_in.bias": None}, "missing net.encoder.conv_in.bias"),
        ({"decoder.up.0.attn.0.q.weight": torch.zeros(1)}, "unexpected decoder.up.0.attn.0.q.weight"),
        ({"quantize.embedding.weight": torch.zeros(16, 3)}, "of another shape net.quantize.embedding.weight"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Tensor | None], message: str) -> None:
    state = {name: t for name, t in {**published(TINY), **change}.items() if t is not None}
    with pytest.raises(UsageError, match=message):
        convert_vqgan(state, TINY)
