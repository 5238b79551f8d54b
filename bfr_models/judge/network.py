"""The judge's network: from a face as it is and as it would be to a prediction of what the change is worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

VIEW = 256
"""Side of the views, px: a smaller face is enlarged to it, a larger one shrunk."""


@dataclass(frozen=True)
class Outputs:
    """What the network says of each pair, each (B,)."""

    gain: Tensor  # share of the perceptual distance that goes, about [-1, 1]
    log_spread: Tensor  # of that, natural logarithm of its standard deviation
    identity_gain: Tensor  # change of a cosine
    blur: Tensor  # sigma, px at 128 px
    noise: Tensor  # grey levels / 10
    compression: Tensor  # (100 - quality) / 100


class JudgeNetwork(nn.Module):
    """A convolutional network of about 0.6 M parameters, 0.12 G multiplications a pair."""

    def __init__(self, channels: tuple[int, int, int] = (48, 80, 128)) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.patches = nn.Conv2d(2 * 3, fine, 4, stride=4)
        self.layers = nn.Sequential(
            _down(fine + 2, fine),
            _Residual(fine),
            _down(fine, middle),
            _Residual(middle),
            _down(middle, coarse),
            _Residual(coarse),
            nn.SiLU(),
        )
        self.head = nn.Sequential(nn.Linear(2 * coarse + 1, 64), nn.SiLU(), nn.Linear(64, 6))

    def forward(self, face: Tensor, candidate: Tensor | None, side: Tensor) -> Outputs:
        """(B, 3, VIEW, VIEW) in [-1, 1] each, and (B,) the side of the face in the photo, px.

        Without a candidate the network says what one would be worth.
        """
        x = self.patches(torch.cat([face, face if candidate is None else candidate], dim=1))
        size = torch.log2(side / 128)
        facts = torch.stack([size, torch.full_like(size, float(candidate is None))], dim=1)
        x = self.layers(torch.cat([x, facts[:, :, None, None].expand(-1, -1, *x.shape[-2:])], dim=1))
        pooled = torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3)), size[:, None]], dim=1)
        gain, log_spread, *others = self.head(pooled).unbind(dim=1)
        return Outputs(gain, log_spread.clamp(-5, 1), *others)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _down(channels: int, out: int) -> nn.Module:
    return nn.Sequential(nn.SiLU(), nn.Conv2d(channels, out, 3, stride=2, padding=1))
