"""VQGAN (arXiv 2012.09841) as latent diffusion uses it, behind a pixel-unshuffle where speed matters, with its codebook
searched in parts. Its parameters have the names of diffusers' VQModel.

    image -> E -> z -> Z: the nearest code at each place -> G -> image
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bfr_models.networks.blocks import Downsample, MiddleBlock, ResBlock, SelfAttention, Upsample
from bfr_models.networks.configs import VQGANConfig

_PLACES = 1024  # searched at once: 8192 codes make that 32 MiB
EPS = 1e-6


class Reconstruction(NamedTuple):
    """What a VQGAN makes of (B, 3, H, W) in [-1, 1]; h = H / factor."""

    image: Tensor  # (B, 3, H, W), about [-1, 1]
    latent: Tensor  # (B, C, h, w) as encoded
    quantised: Tensor  # (B, C, h, w) of codes
    codes: Tensor  # (B, h, w) numbers of the codes


class VQGAN(nn.Module):
    """The encoder E, the codebook Z and the decoder G."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.unshuffle = config.unshuffle
        self.net = _Net(config)

    @property
    def codebook(self) -> Tensor:
        """(codes, C)"""
        return self.net.quantize.embedding.weight

    def forward(self, image: Tensor) -> Reconstruction:
        """Encodes, quantises and decodes; gradients pass the quantisation straight through."""
        z = self.encode(image).float()
        quantised, codes = self.quantise(z)
        return Reconstruction(self.decode(z + (quantised - z).detach()), z, quantised, codes)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, C, h, w), before quantisation."""
        return self.net.quant_conv(self.net.encoder(F.pixel_unshuffle(image, self.unshuffle)))

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest code at each place of (B, C, h, w), with the codebook's gradient, and its number (B, h, w)."""
        places = z.detach().float().movedim(1, -1)
        numbers = self._nearest(places.reshape(-1, places.shape[-1])).view(places.shape[:-1])
        return F.embedding(numbers, self.codebook).movedim(-1, 1), numbers

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, h, w), quantised or not, -> (B, 3, H, W), about [-1, 1]."""
        return F.pixel_shuffle(self.net.decoder(self.net.post_quant_conv(z)), self.unshuffle)

    def save_memory(self) -> None:
        """Makes gradients through the decoder compute its activations again, block by block, instead of keeping them
        all."""
        self.net.decoder.saves_memory = True

    @torch.no_grad()
    def _nearest(self, places: Tensor) -> Tensor:
        """(n,) for (n, C): argmin |z - e|^2 = argmin |e|^2 / 2 - z e, in float32."""
        with torch.autocast(places.device.type, enabled=False):
            codebook = self.codebook.detach().float()
            offset = codebook.square().sum(1) / 2
            parts = [torch.addmm(offset, part, codebook.T, alpha=-1).argmin(1) for part in torch.split(places, _PLACES)]
        return torch.cat(parts)


class _Net(nn.Module):
    """The parts, which `VQGAN` puts together."""

    def __init__(self, c: VQGANConfig) -> None:
        super().__init__()
        pixels, codes = 3 * c.unshuffle**2, c.latent_channels
        self.encoder = _Encoder(c, pixels, codes)
        self.quant_conv = nn.Conv2d(codes, codes, 1)
        self.quantize = _Codebook(c.codes, codes)
        self.post_quant_conv = nn.Conv2d(codes, codes, 1)
        self.decoder = _Decoder(c, codes, pixels)


class _Codebook(nn.Module):
    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, channels)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)


class _Encoder(nn.Module):
    def __init__(self, c: VQGANConfig, channels: int, out: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, c.channels[0], 3, padding=1)
        levels = [*pairwise((c.channels[0], *c.channels))]
        self.down_blocks = nn.ModuleList(
            _Level(c, given, width, c.layers_per_block, down=i < len(levels) - 1)
            for i, (given, width) in enumerate(levels)
        )
        self.mid_block = _middle(c)
        self.conv_norm_out = nn.GroupNorm(c.norm_groups, c.channels[-1], EPS)
        self.conv_out = nn.Conv2d(c.channels[-1], out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class _Decoder(nn.Module):
    def __init__(self, c: VQGANConfig, channels: int, out: int) -> None:
        super().__init__()
        self.saves_memory = False
        self.conv_in = nn.Conv2d(channels, c.channels[-1], 3, padding=1)
        self.mid_block = _middle(c)
        levels = [*pairwise((c.channels[-1], *c.channels[::-1]))]
        self.up_blocks = nn.ModuleList(
            _Level(c, given, width, c.layers_per_block + 1, up=i < len(levels) - 1)
            for i, (given, width) in enumerate(levels)
        )
        self.conv_norm_out = nn.GroupNorm(c.norm_groups, c.channels[0], EPS)
        self.conv_out = nn.Conv2d(c.channels[0], out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in (self.mid_block, *self.up_blocks):
            x = checkpoint(block, x, use_reentrant=False) if self.saves_memory and torch.is_grad_enabled() else block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class _Level(nn.Module):
    """The residual blocks of one resolution, and the step to the next."""

    def __init__(
        self, c: VQGANConfig, channels: int, out: int, layers: int, *, down: bool = False, up: bool = False
    ) -> None:
        super().__init__()
        widths = (channels, *(out,) * (layers - 1))
        self.resnets = nn.ModuleList(ResBlock(width, out, c.norm_groups, EPS) for width in widths)
        self.downsamplers = nn.ModuleList([Downsample(out, both_sides=False)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample(out)] if up else [])

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = block(x)
        return x


def _middle(c: VQGANConfig) -> MiddleBlock:
    width = c.channels[-1]
    attention = SelfAttention(width, width, c.norm_groups, EPS) if c.mid_attention else None
    return MiddleBlock([ResBlock(width, width, c.norm_groups, EPS) for _ in range(2)], attention)


def perplexity(codes: Tensor, size: int) -> float:
    """exp of the entropy of how often each of `size` codes is used: 1 for one code, `size` when all are used alike."""
    share = torch.bincount(codes.flatten(), minlength=size).double() / codes.numel()
    return float(torch.special.entr(share).sum().exp())
