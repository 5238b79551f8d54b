"""The judge's network: from what is seen of a face, and of what would take its place, to what the change is worth."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.judge.features import OF_ONE, OF_TWO, Bands, differences

FEATURES = 2 * OF_ONE + OF_TWO + 2
OUTPUTS = 6
MEMBERS, HIDDEN = 8, 128


@dataclass(frozen=True)
class Outputs:
    """What the network says of each pair, each (members, B)."""

    gain: Tensor  # share of the perceptual distance that goes, about [-1, 1]
    log_spread: Tensor  # of that, natural logarithm of its standard deviation
    identity_gain: Tensor  # change of a cosine
    blur: Tensor  # sigma, px at 128 px
    noise: Tensor  # grey levels / 10
    compression: Tensor  # (100 - quality) / 100

    def together(self) -> tuple[Tensor, Tensor]:
        """(B,) the members' mean gain, and its standard deviation: theirs, and that between them."""
        variance = (2 * self.log_spread).exp().mean(dim=0) + self.gain.var(dim=0)
        return self.gain.mean(dim=0), variance.sqrt()


def features(face: Bands, candidate: Bands | None, side: float) -> Tensor:
    """(FEATURES,) of a face that is `side` px wide in its photo, and of a candidate. Without one, of the face alone."""
    if candidate is None:
        seen = [face.statistics, np.zeros(OF_ONE + OF_TWO)]
    else:
        seen = [face.statistics, candidate.statistics, differences(face, candidate)]
    return torch.from_numpy(np.concatenate([*seen, [log2(side / 128), candidate is None]])).float()


class JudgeNetwork(nn.Module):
    """Several small networks of three layers that were trained apart: where they differ, the judge is unsure."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(FEATURES), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(FEATURES), requires_grad=False)
        self.layers = nn.ModuleList([_Linear(FEATURES, HIDDEN), _Linear(HIDDEN, HIDDEN), _Linear(HIDDEN, OUTPUTS)])

    def forward(self, x: Tensor) -> Outputs:
        """(B, FEATURES)."""
        x = ((x - self.mean) / self.deviation).clamp(-6, 6).expand(MEMBERS, -1, -1)
        first, second, last = self.layers
        x = F.silu(first(x))
        x = x + F.silu(second(x))
        gain, log_spread, *others = last(x).unbind(dim=-1)
        return Outputs(gain, log_spread.clamp(-5, 1), *others)

    def standardise(self, x: Tensor) -> None:
        """Learns the features' scales from (n, FEATURES)."""
        self.mean.data, self.deviation.data = x.mean(dim=0), x.std(dim=0).clamp(min=1e-3)


class _Linear(nn.Module):
    """(members, B, inputs) -> (members, B, outputs), each member with weights of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(MEMBERS, inputs, outputs) * (1 / inputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(MEMBERS, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)
