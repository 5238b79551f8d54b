"""What the training loop trains: a component knows its network, its loss, what to measure on held-out faces and what to
draw. The loop (`bfr_models.training.loop`) knows the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from bfr_models.training.data import Augmentation
from bfr_models.weights import load_weights


@dataclass(frozen=True)
class Recipe:
    """The checked-in settings of one component's training."""

    size: int
    degradations: tuple[str, ...]  # presets mixed evenly; none for a prior on clean faces
    steps: int
    batch_size: int = 16
    learning_rate: float = 4e-4
    warmup: int = 200  # steps of linear warm-up
    decay: float = 0.25  # last share of the steps, over which the rate falls linearly to 0
    ema: float = 0.999
    clip: float = 1.0  # of the gradient's norm
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class Aids:
    """Files of the frozen networks that a loss may look through."""

    perceptual: Path | None = None  # SqueezeNet 1.1, Caffe-style
    recogniser: Path | None = None  # `bfr_models.networks.mobile_face`

    def given(self) -> list[str]:
        return [name for name in ("perceptual", "recogniser") if getattr(self, name) is not None]


NO_AIDS = Aids()


class Component(ABC):
    """One trainable network. Pictures are (B, 3, H, W) in [-1, 1]."""

    recipe: Recipe

    @abstractmethod
    def build(self) -> nn.Module: ...

    def initialise(self, network: nn.Module, weights: Path) -> None:
        """Fills a fresh network from the weights that the run starts from; checked and strict."""
        load_weights(network, weights)

    @abstractmethod
    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor) -> Tensor: ...

    @abstractmethod
    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]: ...

    @abstractmethod
    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        """Columns of a picture grid, each (n, 3, H, W) in [-1, 1]."""


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over the pictures, data range 2."""
    mse = (a - b).double().pow(2).flatten(1).mean(1)
    return float((10 * torch.log10(4 / mse)).mean())
