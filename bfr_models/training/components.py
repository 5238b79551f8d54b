"""What can be trained: one small class per component, one row per component in the table below.

A component knows its network, its loss, what to measure on held-out faces and what to draw.
The loop (`bfr_models.training.loop`) knows the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bfr_models.diffusion.sampling import as_eps_model, ddim_sample
from bfr_models.diffusion.schedule import add_noise, linear_alphas_cumprod, truncated_timesteps
from bfr_models.errors import UsageError, unknown
from bfr_models.methods.presets import DifFacePreset
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.unet import UNet
from bfr_models.registry import methods
from bfr_models.rng import RowNoise
from bfr_models.training.data import Augmentation
from bfr_models.training.perceptual import PerceptualDistance, load_perceptual_distance

PERCEPTUAL_WEIGHT = 0.05


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


class Component(Protocol):
    recipe: Recipe

    def build(self) -> nn.Module: ...

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor) -> Tensor: ...

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]: ...

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        """Columns of a picture grid, each (n, 3, H, W) in [-1, 1]."""
        ...


class Estimator:
    """DifFace's regression network: L1 between f(y0) and x0 (the authors' current loss).

    With a perceptual distance d, L1 + `PERCEPTUAL_WEIGHT` d: a small network on few faces blurs who somebody is.
    """

    def __init__(self, preset: DifFacePreset, perceptual: PerceptualDistance | None = None) -> None:
        self.config = preset.estimator
        self.perceptual = perceptual
        self.recipe = Recipe(preset.size, ("gfpgan", "gfpgan", "difface"), steps=8000)

    def build(self) -> nn.Module:
        return SwinIR(self.config)

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor) -> Tensor:
        restored = network((lq + 1) / 2).float() * 2 - 1
        loss = (restored - gt).abs().mean() / 2  # of values in [0, 1]
        if self.perceptual is not None:
            loss = loss + PERCEPTUAL_WEIGHT * self.perceptual.to(gt.device)(restored, gt)
        return loss

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        restored = self._restore(network, lq)
        return {"psnr": _psnr(restored, gt), "psnr_lq": _psnr(lq, gt)}

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        return [lq, self._restore(network, lq), gt]

    def _restore(self, network: nn.Module, lq: Tensor) -> Tensor:
        return (network((lq + 1) / 2).float() * 2 - 1).clamp(-1, 1)


class Prior:
    """DifFace's unconditional diffusion model: mean (eps - eps_theta(x_t, t))^2, t uniform below t_max.

    Only the last N steps of the chain are ever run, so only they are trained.
    """

    def __init__(self, preset: DifFacePreset) -> None:
        if preset.prior.learn_sigma:
            raise UsageError(f"expected a prior without a learned variance, as face128's, got that of {preset.name}")
        self.config, self.t_max = preset.prior, preset.max_timestep
        self.alphas_cumprod = linear_alphas_cumprod()
        self.recipe = Recipe(preset.size, (), steps=8000)

    def build(self) -> nn.Module:
        return UNet(self.config)

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor) -> Tensor:
        t = torch.randint(0, self.t_max + 1, (gt.shape[0],))
        return self._eps_loss(network, gt, t, torch.randn_like(gt))

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        noise = RowNoise(range(len(gt)), gt.device)(*gt.shape[1:])
        grid = torch.linspace(0, self.t_max, 6).long().tolist()
        losses = {t: float(self._eps_loss(network, gt, torch.full((len(gt),), t), noise)) for t in grid}
        return {"eps_loss": sum(losses.values()) / len(losses)} | {f"eps_loss_{t}": v for t, v in losses.items()}

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        noise = RowNoise(range(len(gt)), gt.device)
        timesteps = truncated_timesteps(self.t_max, 20)
        x = add_noise(gt, noise(*gt.shape[1:]), self.alphas_cumprod[timesteps[0]])
        return [gt, x.clamp(-1, 1), ddim_sample(as_eps_model(network), x, timesteps, self.alphas_cumprod, 0.5, noise)]

    def _eps_loss(self, network: nn.Module, gt: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        x = add_noise(gt, noise, self.alphas_cumprod[t].view(-1, 1, 1, 1).to(gt.device))
        return (network(x, t.to(gt.device)).float() - noise).pow(2).mean()


COMPONENTS: dict[tuple[str, str], Callable[[Any], Component]] = {
    ("difface", "estimator"): Estimator,
    ("difface", "prior"): Prior,
}


def get_component(method: str, component: str, preset: str, perceptual: Path | None = None) -> Component:
    """The component to train; unknown names list the known ones. `perceptual`: SqueezeNet's weights."""
    if (method, component) not in COMPONENTS:
        raise unknown("component", f"{method} {component}", [" ".join(key) for key in COMPONENTS])
    by_name = {p.name: p for p in methods()[method].presets if isinstance(p, DifFacePreset)}
    if preset not in by_name:
        raise unknown(f"preset of {method}", preset, list(by_name))
    if perceptual is None:
        return COMPONENTS[method, component](by_name[preset])
    if COMPONENTS[method, component] is not Estimator:
        raise UsageError(f"expected no perceptual loss for {method} {component}: it is learned from its noise alone")
    return Estimator(by_name[preset], load_perceptual_distance(perceptual))


def _psnr(a: Tensor, b: Tensor) -> float:
    """Mean over the pictures, data range 2."""
    mse = (a - b).double().pow(2).flatten(1).mean(1)
    return float((10 * torch.log10(4 / mse)).mean())
