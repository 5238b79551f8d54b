"""VQGAN (arXiv 2012.09841) as latent diffusion uses it: diffusers' VQModel, behind a pixel-unshuffle where speed
matters, with its codebook searched in parts.

    image -> E -> z -> Z: the nearest code at each place -> G -> image
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bfr_models.networks.configs import VQGANConfig
from bfr_models.networks.diffusers_compat import diffusers_module

_PLACES = 1024  # searched at once: 8192 codes make that 32 MiB


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
        c, s2, levels = config, config.unshuffle**2, len(config.channels)
        self.unshuffle = c.unshuffle
        self.net = diffusers_module("models.autoencoders.vq_model").VQModel(
            in_channels=3 * s2,
            out_channels=3 * s2,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=c.channels,
            layers_per_block=c.layers_per_block,
            latent_channels=c.latent_channels,
            num_vq_embeddings=c.codes,
            norm_num_groups=c.norm_groups,
            mid_block_add_attention=c.mid_attention,
        )

    @property
    def codebook(self) -> nn.Parameter:
        """(codes, C)"""
        return self.net.quantize.embedding.weight

    def forward(self, image: Tensor) -> Reconstruction:
        """Encodes, quantises and decodes; gradients pass the quantisation straight through."""
        z = self.encode(image).float()
        quantised, codes = self.quantise(z)
        return Reconstruction(self.decode(z + (quantised - z).detach()), z, quantised, codes)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, C, h, w), before quantisation."""
        return self.net.encode(F.pixel_unshuffle(image, self.unshuffle), return_dict=False)[0]

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest code at each place of (B, C, h, w), with the codebook's gradient, and its number (B, h, w)."""
        places = z.detach().float().movedim(1, -1)
        numbers = self._nearest(places.reshape(-1, places.shape[-1])).view(places.shape[:-1])
        return F.embedding(numbers, self.codebook).movedim(-1, 1), numbers

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, h, w), quantised or not, -> (B, 3, H, W), about [-1, 1]."""
        image = self.net.decode(z, force_not_quantize=True, return_dict=False)[0]
        return F.pixel_shuffle(image, self.unshuffle)

    def save_memory(self) -> None:
        """Makes gradients through the decoder compute its activations again, block by block, instead of keeping them
        all."""
        self.net.decoder._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        self.net.decoder.gradient_checkpointing = True

    @torch.no_grad()
    def _nearest(self, places: Tensor) -> Tensor:
        """(n,) for (n, C): argmin |z - e|^2 = argmin |e|^2 / 2 - z e, in float32."""
        with torch.autocast(places.device.type, enabled=False):
            codebook = self.codebook.detach().float()
            offset = codebook.square().sum(1) / 2
            parts = [torch.addmm(offset, part, codebook.T, alpha=-1).argmin(1) for part in torch.split(places, _PLACES)]
        return torch.cat(parts)


def perplexity(codes: Tensor, size: int) -> float:
    """exp of the entropy of how often each of `size` codes is used: 1 for one code, `size` when all are used alike."""
    share = torch.bincount(codes.flatten(), minlength=size).double() / codes.numel()
    return float(torch.special.entr(share).sum().exp())
