"""The rectified flow that can take the place of DiffBFR's second restoring chain.

    L = || v - v_theta(x_s, s) ||^2,   v = z - x_0,   x_s = s z + (1 - s) x_0,   z = y + sigma n      s ~ U[0, 1]

y is the face as the method has it by then: the regression network's, corrected by the first model. So train it behind
both (`--estimator`, `--irm-low`); it may start (`--initial`) from its own weights or from an unconditional prior's of
its shape.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bfr_models.diffusion.flow import SPEED, TIMESTEPS, flow, flow_start
from bfr_models.diffusion.sampling import as_model
from bfr_models.errors import UsageError
from bfr_models.methods.diffbfr_presets import DiffBFROptions, DiffBFRPreset
from bfr_models.networks.unet import UNet
from bfr_models.rng import RowNoise
from bfr_models.training.component import AuxiliaryWeights, Component, LossWeights, Recipe, psnr
from bfr_models.training.diffbfr import IrmHigh
from bfr_models.training.draws import Draws
from bfr_models.training.perceptual import load_perceptual_distance


class Flow(Component):
    """Trained on faces as the method's first stages leave them; evaluated with as many steps as the method takes."""

    def __init__(
        self, preset: DiffBFRPreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        if preset.flow is None:
            raise UsageError(f"expected a preset with a flow, found {preset.name}")
        super().__init__(recipe, weights)
        self.config = preset.flow
        self.steps = cast(DiffBFROptions, preset.options).steps_flow
        self.before = IrmHigh(preset, auxiliary.only(("irm_low", "estimator")), recipe, weights)  # not trained here
        self.perceptual = load_perceptual_distance(auxiliary.perceptual) if auxiliary.perceptual else None

    def build(self) -> nn.Module:
        return UNet(self.config)

    def provenance(self) -> dict[str, str]:
        return self.before.provenance()

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        s = draws.stratified()
        x, v = self._on_the_way(gt, self.before.start_of_second(lq, draws), s, draws(*gt.shape[1:]))
        predicted = network(x, (TIMESTEPS * s).to(gt)).float()
        return (predicted - v / SPEED).pow(2).mean()

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        """The loss, its mean over places of the way and of each; PSNR of the restored face, of the flow's start and of
        the lq face; with SqueezeNet's weights the perceptual distances of both."""
        noise = RowNoise(range(len(lq)), lq.device)
        y = self.before.start_of_second(lq, noise)
        drawn = noise(*gt.shape[1:])
        losses = {}
        for s in (0.1, 0.4, 0.7, 1.0):
            x, v = self._on_the_way(gt, y, torch.full((len(gt),), s), drawn)
            losses[s] = float((as_model(network)(x, TIMESTEPS * s) - v / SPEED).pow(2).mean())
        metrics = {"flow_loss": sum(losses.values()) / len(losses)} | {f"flow_loss_{s}": v for s, v in losses.items()}
        restored = flow(as_model(network), y, self.steps, noise)
        metrics |= {"psnr": psnr(restored, gt), "psnr_start": psnr(y, gt), "psnr_lq": psnr(lq, gt)}
        if self.perceptual is not None:
            distance = self.perceptual.to(gt.device)
            metrics |= {"perceptual": float(distance(restored, gt)), "perceptual_start": float(distance(y, gt))}
        return metrics

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        """lq, the flow's start, restored, gt."""
        noise = RowNoise(range(len(lq)), lq.device)
        y = self.before.start_of_second(lq, noise)
        return [lq, y, flow(as_model(network), y, self.steps, noise), gt]

    @staticmethod
    def _on_the_way(x_0: Tensor, y: Tensor, s: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """x_s and v of each face; s is (B,)."""
        z = flow_start(y, noise)
        return torch.lerp(x_0, z, s.view(-1, 1, 1, 1).to(x_0)), z - x_0
