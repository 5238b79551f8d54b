"""DifFace's two components: the regression network and the unconditional prior."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bfr_models.diffusion.sampling import as_model, clipped, get_sampler, sample
from bfr_models.diffusion.schedule import add_noise, levels_at, linear_alphas_cumprod, truncated_timesteps
from bfr_models.errors import UsageError
from bfr_models.methods.difface_presets import DifFacePreset, PriorPreset
from bfr_models.methods.estimator import estimate_of
from bfr_models.networks.configs import SwinIRConfig
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.unet import UNet
from bfr_models.rng import RowNoise
from bfr_models.training.component import AuxiliaryWeights, Component, LossWeights, Recipe, psnr
from bfr_models.training.deepen import deepen
from bfr_models.training.draws import Draws
from bfr_models.training.identity_loss import IdentityLoss
from bfr_models.weights.files import check_weight
from bfr_models.weights.tensors import read_checkpoint


class Estimator(Component):
    """DifFace's regression network: L1 between f(y0) and x0 (the authors' current loss).

    Ours: `IdentityLoss` beside it, where its networks are given, because a small network trained on few faces blurs
    away the person.
    """

    def __init__(
        self, preset: DifFacePreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        super().__init__(recipe, weights)
        self.config = self.network_config(preset)
        self.identity_loss = IdentityLoss(auxiliary, weights)

    @staticmethod
    def network_config(preset: Any) -> SwinIRConfig:
        if not isinstance(preset.estimator, SwinIRConfig):
            raise UsageError(f"expected a preset with a SwinIR, found {preset.name}; train its `estimator_unet`")
        config: SwinIRConfig = preset.estimator
        return config

    def build(self) -> nn.Module:
        return SwinIR(self.config)

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        luck = draws.uniform(*self.config.luck).to(lq)
        restored = network((lq + 1) / 2, luck).float() * 2 - 1
        return (restored - gt).abs().mean() / 2 + self.identity_loss.loss(restored, gt, draws)  # L1 of values in [0, 1]

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        restored = self._restore(network, lq)
        metrics = {"psnr": psnr(restored, gt), "psnr_lq": psnr(lq, gt)}
        return metrics | self.identity_loss.cosines(gt, identity=restored, identity_lq=lq)

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        return [lq, self._restore(network, lq), gt]

    def _restore(self, network: nn.Module, lq: Tensor) -> Tensor:
        return estimate_of(network, lq)


class Prior(Component):
    """DifFace's unconditional diffusion model: mean w(t) (eps - eps_theta(x_t, t))^2 over t up to t_max.

    Only the last N steps of the chain are ever run, so only they are trained. Where that is a part of it, the lower
    ones come more often, t = t_max u^1.5, and w(t) = min(snr, SNR_LIMIT) / snr (arXiv 2303.09556): unweighted, the loss
    would look at grain alone. Of the whole chain t is uniform and w is 1, as the authors have it.

    Where the variance is learned, too, the variational bound of a step is added, in bits, a thousandth of the chain's,
    through which the mean learns nothing (improved DDPM, arXiv 2102.09672, eq. 16).
    """

    SNR_LIMIT = 25.0  # that of t = 56

    def __init__(self, preset: PriorPreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights) -> None:
        super().__init__(recipe, weights)
        self.config, self.t_max = preset.prior, preset.max_timestep
        self.alphas_cumprod = linear_alphas_cumprod()

    def build(self) -> nn.Module:
        return UNet(self.config)

    def initialise(self, network: nn.Module, weights: Path) -> None:
        """From its own weights, or from those of a shallower prior of its widths (see `deepen`)."""
        given = read_checkpoint(weights)
        if given.keys() == dict(network.named_parameters()).keys():
            return super().initialise(network, weights)
        check_weight(weights)
        return deepen(cast(UNet, network), given)

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        t, weight = self._timesteps(draws)
        noise = draws(*gt.shape[1:])
        eps, v = self._predicted(network, gt, t, noise)
        loss = (weight.to(eps) * (eps - noise).pow(2)).mean()
        return loss if v is None else loss + self._variance_cost(eps.detach() - noise, v, t).mean()

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        noise = RowNoise(range(len(gt)), gt.device)(*gt.shape[1:])
        grid = torch.linspace(0, self.t_max, 6).long().tolist()
        losses = {}
        for t in grid:
            eps, _ = self._predicted(network, gt, torch.full((len(gt),), t), noise)
            losses[t] = float((eps - noise).pow(2).mean())
        return {"eps_loss": sum(losses.values()) / len(losses)} | {f"eps_loss_{t}": v for t, v in losses.items()}

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        noise = RowNoise(range(len(gt)), gt.device)
        levels = levels_at(truncated_timesteps(self.t_max, 20), self.alphas_cumprod)
        x = levels[0].diffuse(gt, noise(*gt.shape[1:]))
        return [gt, x.clamp(-1, 1), sample(as_model(network), x, levels, get_sampler("ddim", 0.5), noise, clipped())]

    def _timesteps(self, draws: Draws) -> tuple[Tensor, Tensor]:
        """t, (n,), and w(t), (n, 1, 1, 1)."""
        if self.t_max == len(self.alphas_cumprod) - 1:
            return draws.integers(0, self.t_max + 1), torch.ones(1, 1, 1, 1)
        t = (self.t_max * draws.stratified() ** 1.5).round().long()
        snr = self.alphas_cumprod[t] / (1 - self.alphas_cumprod[t])
        return t, (snr.clamp(max=self.SNR_LIMIT) / snr).view(-1, 1, 1, 1)

    def _predicted(self, network: nn.Module, gt: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """eps, and the variance v where it is learned, both (B, 3, H, W)."""
        x = add_noise(gt, noise, self.alphas_cumprod[t].view(-1, 1, 1, 1).to(gt.device))
        output = network(x, t.to(gt.device)).float()
        eps, *v = output.split(gt.shape[1], dim=1)
        return eps, v[0] if v else None

    def _variance_cost(self, error: Tensor, v: Tensor, t: Tensor) -> Tensor:
        """(B, 3, H, W): KL(q(x_{t-1} | x_t, x_0) || p) in bits, of an error of eps; at t = 0 as at t = 1."""
        t = t.clamp(min=1)
        abar, before = self.alphas_cumprod[t], self.alphas_cumprod[t - 1]
        beta = 1 - abar / before
        lower, upper = (beta * (1 - before) / (1 - abar)).log(), beta.log()
        of_mean = beta**2 / ((1 - beta) * (1 - abar))
        lower, upper, of_mean = (x.view(-1, 1, 1, 1).to(error) for x in (lower, upper, of_mean))
        log_variance = (upper - lower) / 2 * v + (upper + lower) / 2
        nats = (log_variance - lower + (lower.exp() + of_mean * error.square()) / log_variance.exp() - 1) / 2
        return nats / math.log(2)
