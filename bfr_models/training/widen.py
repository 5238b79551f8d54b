"""A U-Net of more conditions that begins as one of fewer: what the other has learned is not learned again."""

from __future__ import annotations

import re

import torch

from bfr_models.networks.unet import UNet

FIRST, _LAST = "net.conv_in.weight", ("net.conv_out.weight", "net.conv_out.bias")


@torch.no_grad()
def widen(network: UNet, prior: UNet) -> None:
    """Makes `network` compute what `prior` does, which has only the first of its conditions, or none.

    The weights of the other conditions become zero, and the output of a learned variance is dropped. A network of fewer
    levels gets the finest ones, and has to learn to do without the others.
    """
    given = dict(prior.named_parameters())
    coarser = len(prior.net.up_blocks) - len(network.net.up_blocks)  # levels left out; up_blocks begin with them
    for name, parameter in network.named_parameters():
        source = given[re.sub(r"(?<=up_blocks\.)\d+", lambda number: str(int(number[0]) + coarser), name)]
        if name == FIRST:
            parameter.zero_()[:, : source.shape[1]] = source
        else:
            parameter.copy_(source[: len(parameter)] if name in _LAST else source)
