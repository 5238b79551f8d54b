"""CLR-Face's networks on latents: the score network, with the latents' statistics, and the mask."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from bfr_models.diffusion.sampling import Model
from bfr_models.diffusion.schedule import NUM_TRAIN_TIMESTEPS
from bfr_models.networks.configs import LatentMaskConfig, UNetConfig
from bfr_models.networks.unet import UNet


class LatentScore(nn.Module):
    """eps_theta([z_t, z_y], t): the noise in a normalised latent, given the degraded face's latent, and beside it that
    of the Identity Recovery Network's face, z_irn, where the network has room for two.

    `mean` and `std` are those of E(x) per channel over clean faces. They are weights, since nothing else holds them.
    """

    def __init__(self, config: UNetConfig, latent_channels: int) -> None:
        super().__init__()
        self.unet = UNet(config)
        self._condition_channels = config.condition_channels
        self.mean = nn.Parameter(torch.zeros(latent_channels, 1, 1), requires_grad=False)
        self.std = nn.Parameter(torch.ones(latent_channels, 1, 1), requires_grad=False)

    def forward(self, z: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """z (B, C, h, w) and the `condition`, normalised; t (B,) in [0, 1] -> eps (B, C, h, w)."""
        return self.unet(torch.cat([z, condition], dim=1), t * NUM_TRAIN_TIMESTEPS)

    def condition(self, degraded: Tensor, *estimate: Tensor) -> Tensor:
        """z_y and, if it is there, z_irn, normalised, (B, C, h, w) -> what `forward` has to be given of them."""
        return torch.cat([degraded, *estimate], dim=1)[:, : self._condition_channels]

    def measure(self, latents: Tensor) -> None:
        """Takes the statistics of E(x), (n, C, h, w), rounded as weights are stored."""
        self.mean.copy_(latents.mean(dim=(0, 2, 3)).half().view_as(self.mean))
        self.std.copy_(latents.std(dim=(0, 2, 3)).half().view_as(self.std))

    def normalise(self, z: Tensor) -> Tensor:
        """E(x) -> mean 0 and variance 1 per channel, which the diffusion's schedule is made for."""
        return (z - self.mean) / self.std

    def denormalise(self, z: Tensor) -> Tensor:
        return z * self.std + self.mean


def conditioned(score: nn.Module, condition: Tensor) -> Model:
    """(z_t, t) -> eps in float32 by a `LatentScore`, compiled or not, under this condition."""
    return lambda z, t: score(z, condition, torch.full((len(z),), t, device=z.device)).float()


class LatentMask(nn.Module):
    """m(z_y, z_irn) in (0, 1), (B, 1, h, w): where a latent carries identity. 1/2 everywhere at the start."""

    def __init__(self, config: LatentMaskConfig, latent_channels: int) -> None:
        super().__init__()
        widths = [2 * latent_channels, *[config.channels] * (config.layers - 1)]
        layers: list[nn.Module] = []
        for i, o in pairwise(widths):
            layers += [nn.Conv2d(i, o, 3, padding=1), nn.SiLU()]
        last = nn.Conv2d(widths[-1], 1, 3, padding=1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers, last)

    def forward(self, degraded: Tensor, estimate: Tensor) -> Tensor:
        return self.layers(torch.cat([degraded, estimate], dim=1)).float().sigmoid()
