"""What the training loop trains: a component knows its network, its loss, and what to measure and show of held-out
faces. The loop (`bfr_models.training.loop`) knows the rest, and `bfr_models.training.registry` the numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bfr_models.training.data import Augmentation
from bfr_models.training.draws import Draws
from bfr_models.weights.tensors import load_weights


@dataclass(frozen=True)
class Recipe:
    """How one component is trained. A weight file's card holds it."""

    size: int  # side of the faces, px
    degradations: tuple[str, ...]  # presets mixed evenly; none for training on clean faces
    steps: int
    batch_size: int = 16
    learning_rate: float = 4e-4
    warmup: int = 200  # steps of linear warm-up
    decay: float = 0.25  # last share of the steps, over which the rate falls linearly to 0
    ema: float = 0.999
    clip: float = 1.0  # of the gradient's norm
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class LossWeights:
    """Of a loss's further terms; its first has the weight 1. Each component reads those of the terms it has."""

    perceptual: float = 0.0
    lattice: float = 0.0  # what a network draws again every few pixels
    identity: float = 0.0
    commitment: float = 0.0  # of latents to their codes
    gan: float = 0.0
    gan_from: int = 0  # the step at which that term sets in
    sparsity: float = 0.0


@dataclass(frozen=True)
class AuxiliaryWeights:
    """Weight files of the frozen networks that a loss uses, where they are given."""

    perceptual: Path | None = None  # SqueezeNet 1.1, Caffe-style
    recogniser: Path | None = None  # `bfr_models.networks.mobile_face`
    irm_low: Path | None = None  # DiffBFR's first model, to train the second behind it
    estimator: Path | None = None  # the regression network that its chains start from, or `face256` draws on

    def given(self) -> list[str]:
        return [file.name for file in fields(self) if getattr(self, file.name) is not None]

    def only(self, names: Collection[str]) -> AuxiliaryWeights:
        """Those of these names."""
        return AuxiliaryWeights(**{name: getattr(self, name) for name in self.given() if name in names})


NO_AUXILIARY = AuxiliaryWeights()


class Component(ABC):
    """One trainable network. Images are (B, 3, H, W) in [-1, 1]."""

    def __init__(self, recipe: Recipe, weights: LossWeights) -> None:
        self.recipe, self.weights = recipe, weights

    @abstractmethod
    def build(self) -> nn.Module: ...

    def prepare(self, network: nn.Module, gt: Tensor) -> None:  # noqa: B027 - most have nothing to do
        """Once, before the first step, on the run's device: fits a fresh network to some clean faces, loads the frozen
        networks that the loss uses, makes what is trained beside it."""

    def initialise(self, network: nn.Module, weights: Path) -> None:
        """Fills a fresh network from the weights that the run starts from; checked and strict."""
        load_weights(network, weights)

    @abstractmethod
    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        """The mean over the faces, some or all of the step's batch. All that is random in it comes from `draws`."""

    def after_step(self, network: nn.Module, learning_rate: float, draws: Draws) -> None:  # noqa: B027
        """After each step of the network: trains what is trained beside it, on the faces of the losses since the last;
        alike on every rank (`bfr_models.training.ranks`)."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold besides the network and its optimiser, so that a resumed run is exact."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Restores it, after `prepare`."""

    def provenance(self) -> dict[str, Any]:
        """For the weights' card: which networks they were trained with."""
        return {}

    @abstractmethod
    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]: ...

    @abstractmethod
    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        """Columns of a grid of images, each (n, 3, H, W) in [-1, 1]."""


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over the images, data range 2."""
    mse = (a - b).double().pow(2).flatten(1).mean(1)
    return float((10 * torch.log10(4 / mse)).mean())
