"""DiffBFR's two restoring models; its texture model is DifFace's prior (`bfr_models.training.difface.Prior`).

    L = || eps - eps_theta(x_t, c, t) ||^2,   x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps

Ours: a method's chain starts not from a noised x_0 but from a noised y, the image to restore, so a share of every batch
learns that. There x_t is made of y, and the target is the eps that leads from x_t to x_0; the x_0 that the network
predicts is also compared with the true one by `IdentityLoss`.

Train in this order: `tem` (or take DifFace's prior as it is); `irm_low`; `irm_high`, with the first model's weights as
`--irm-low`, or the flow that can take its place (`bfr_models.training.diffbfr_flow`). Both models may start
(`--initial`) from their own weights, and from a prior's of the second model's shape: at 512 px from DifFace's; at 128
px the prior that ships is a deeper one. Nothing is trained jointly.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.diffusion.own_start import own_chains
from bfr_models.diffusion.sampling import Noise, as_model, get_sampler, truncated_sample, truncated_sample_each
from bfr_models.diffusion.schedule import add_noise, levels_at, linear_alphas_cumprod, truncated_timesteps
from bfr_models.errors import UsageError
from bfr_models.methods.diffbfr import corrected
from bfr_models.methods.diffbfr_presets import DiffBFROptions, DiffBFRPreset
from bfr_models.methods.estimator import estimate_of
from bfr_models.networks.configs import UNetConfig
from bfr_models.networks.estimators import build_estimator
from bfr_models.networks.unet import UNet
from bfr_models.pixels import resize
from bfr_models.rng import RowNoise
from bfr_models.training.component import NO_AUXILIARY, AuxiliaryWeights, Component, LossWeights, Recipe, psnr
from bfr_models.training.draws import Draws
from bfr_models.training.identity_loss import IdentityLoss
from bfr_models.training.widen import FIRST, widen
from bfr_models.weights.files import read_card
from bfr_models.weights.tensors import load_weights, read_checkpoint

FROM_START = 0.6  # share of a batch with x_t a noised y, at timesteps around the chain's start
MIN_SNR_GAMMA = 5.0  # weight min(1, gamma / SNR) of that share (arXiv 2303.09556): its eps grows as the noise falls
CONDITION_STEPS = 4  # of the frozen first model while it makes conditions for the second


class _Stage(NamedTuple):
    """One of the method's two restoring chains."""

    config: UNetConfig
    t_max: int  # the last timestep that the network is trained on
    start: int  # where the method's chain starts by default
    steps: int


class _ConditionalDenoiser(Component):
    """One conditional model. Its subclass says what it restores, from what start, given what condition."""

    def __init__(
        self,
        preset: DiffBFRPreset,
        auxiliary: AuxiliaryWeights,
        recipe: Recipe,
        weights: LossWeights,
    ) -> None:
        super().__init__(recipe, weights)
        assert isinstance(preset.options, DiffBFROptions)
        self.preset = preset
        self.config, self.t_max, self.start, self.steps = self.stage(preset, preset.options)
        self.alphas_cumprod = linear_alphas_cumprod()
        self.identity_loss = IdentityLoss(auxiliary, weights)

    @staticmethod
    @abstractmethod
    def stage(preset: DiffBFRPreset, options: DiffBFROptions) -> _Stage: ...

    @abstractmethod
    def training_images(self, gt: Tensor, lq: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """(x_0, y, condition) at the network's size; a chain starts from y."""

    @abstractmethod
    def images(self, gt: Tensor, lq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same as when the method restores: nothing drawn at random."""

    def build(self) -> nn.Module:
        return UNet(self.config)

    def initialise(self, network: nn.Module, weights: Path) -> None:
        """From its own weights, or from those of an unconditional prior of the second model's shape (see `widen`)."""
        shape = replace(self.preset.irm_high, condition_channels=0, learn_sigma=self.preset.prior.learn_sigma)
        prior, given = UNet(shape), read_checkpoint(weights)
        same_layers = given.keys() == dict(prior.named_parameters()).keys()
        if not same_layers or given[FIRST].shape != prior.get_parameter(FIRST).shape:
            return super().initialise(network, weights)
        load_weights(prior, weights)
        return widen(cast(UNet, network), prior)

    def loss(self, network: nn.Module, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        x_0, y, condition = self.training_images(gt, lq, draws)
        from_start = draws.uniform() < FROM_START
        t = torch.where(from_start, self._timesteps_around_start(draws), dense_low_timesteps(self.t_max, draws))
        abar = self.alphas_cumprod[t].view(-1, 1, 1, 1)
        snr = abar / (1 - abar)
        weight = torch.where(from_start, (MIN_SNR_GAMMA / snr.flatten()).clamp(max=1), 1.0).to(gt)
        source = torch.where(from_start.view(-1, 1, 1, 1).to(gt.device), y, x_0)
        noise = draws(*x_0.shape[1:])
        eps = noise + snr.sqrt().to(gt) * (source - x_0)
        x = add_noise(source, noise, abar.to(gt.device))
        predicted = network(torch.cat([x, condition], dim=1), t.to(gt.device)).float()
        loss = (weight * (predicted - eps).pow(2).mean((1, 2, 3))).mean()
        if not from_start.any():
            return loss
        restored = (x - (1 - abar).sqrt().to(gt) * predicted) / abar.sqrt().to(gt)
        restored, x_0 = (resize(image[from_start], self.preset.size) for image in (restored, x_0))
        return loss + from_start.float().mean() * self.identity_loss.loss(restored, x_0, draws.of(from_start))

    def evaluate(self, network: nn.Module, gt: Tensor, lq: Tensor) -> dict[str, float]:
        """eps_loss, the mean over timesteps and each; PSNR of the restored face, of the chain's start and of the lq
        face; with a recogniser, the similarity to x_0 of the restored and of the lq face."""
        x_0, y, condition = self.images(gt, lq)
        noise = RowNoise(range(len(gt)), gt.device)(*x_0.shape[1:])
        losses = {}
        for t in torch.linspace(0, self.t_max, 6).long().tolist():
            x = add_noise(x_0, noise, float(self.alphas_cumprod[t]))
            losses[t] = float((as_model(network, condition)(x, t) - noise).pow(2).mean())
        metrics = {"eps_loss": sum(losses.values()) / len(losses)} | {f"eps_loss_{t}": v for t, v in losses.items()}
        restored = self._restore(network, y, condition)
        lq = resize(lq, x_0.shape[-1]).clamp(-1, 1)
        metrics |= {"psnr": psnr(restored, x_0), "psnr_start": psnr(y, x_0), "psnr_lq": psnr(lq, x_0)}
        restored, lq, x_0 = (resize(image, self.preset.size) for image in (restored, lq, x_0))
        return metrics | self.identity_loss.cosines(x_0, identity=restored, identity_lq=lq)

    def preview(self, network: nn.Module, gt: Tensor, lq: Tensor) -> list[Tensor]:
        """lq, restored, gt."""
        x_0, y, condition = self.images(gt, lq)
        return [resize(lq, x_0.shape[-1]), self._restore(network, y, condition), x_0]

    def _restore(self, network: nn.Module, y: Tensor, condition: Tensor) -> Tensor:
        noise = RowNoise(range(len(y)), y.device)
        return run_chain(network, y, condition, truncated_timesteps(self.start, self.steps), noise)

    def _timesteps_around_start(self, draws: Draws) -> Tensor:
        """From a quarter of the start to twice it, because users may choose another start."""
        return draws.integers(self.start // 4, min(2 * self.start, self.t_max) + 1)


class IrmLow(_ConditionalDenoiser):
    """The first model: restores the face at a smaller size of its own, given the lq face."""

    @staticmethod
    def stage(preset: DiffBFRPreset, options: DiffBFROptions) -> _Stage:
        return _Stage(preset.irm_low, preset.low_max_timestep, options.start_low, options.steps)

    def images(self, gt: Tensor, lq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x_0, y = (resize(image, self.config.sample_size).clamp(-1, 1) for image in (gt, lq))
        return x_0, y, y

    def training_images(self, gt: Tensor, lq: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        return self.images(gt, lq)


class IrmHigh(_ConditionalDenoiser):
    """The second model: restores the first's enlarged output, given that and the lq face.

    In every eight faces, two start from the clean face, made small, blurred and noised (conditioning augmentation,
    arXiv 2106.15282); five from the first model's output, or, without its weights, from a small mixture of the clean
    and the lq face; one from the lq face itself, so that the model also works alone. With a regression network's
    weights it is that network's estimate which the first model corrects, as with the method's start "estimate".
    """

    def __init__(
        self, preset: DiffBFRPreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        super().__init__(preset, auxiliary, recipe, weights)
        options = cast(DiffBFROptions, preset.options)
        self.cover, self.self_ensemble = options.cover, options.start == "estimate" and options.self_ensemble
        self.first = IrmLow(preset, NO_AUXILIARY, recipe, weights)  # for its images and its chain; not trained here
        self.first_weights = auxiliary.irm_low
        self.first_network = _frozen(self.first.build(), auxiliary.irm_low) if auxiliary.irm_low else None
        self.estimator_weights = auxiliary.estimator
        self.estimator = self._load_estimator(preset, auxiliary.estimator) if auxiliary.estimator else None

    @staticmethod
    def stage(preset: DiffBFRPreset, options: DiffBFROptions) -> _Stage:
        return _Stage(preset.irm_high, preset.high_max_timestep, options.start_high, options.steps_high)

    def provenance(self) -> dict[str, str]:
        given = {"irm_low": self.first_weights, "estimator": self.estimator_weights}
        return {f"{name}_sha256": read_card(weights)["sha256"] for name, weights in given.items() if weights}

    def _timesteps_around_start(self, draws: Draws) -> Tensor:
        """Where faces have starts of their own, up to the highest, the lower ones more often."""
        if not self.cover:
            return super()._timesteps_around_start(draws)
        return (2 + (self.start - 2) * draws.uniform() ** 1.5).round().long()

    def images(self, gt: Tensor, lq: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.start_of_second(lq, RowNoise(range(len(lq)), lq.device))
        return gt, y, torch.cat([y, lq], dim=1)

    def start_of_second(self, lq: Tensor, noise: Noise) -> Tensor:
        """The face as the method has it before its second stage: (B, 3, H, W) in [-1, 1], as lq."""
        start = self._start(lq)
        if self.self_ensemble:
            start = (start + self._start(lq.flip(-1)).flip(-1)) / 2
        return corrected(start, self._first_output(start, lq, self.first.steps, noise))

    def training_images(self, gt: Tensor, lq: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        kind = (draws.numbers + torch.randint(8, (), generator=draws.common)) % 8
        augmented, restored = (torch.nonzero(mask).flatten() for mask in (kind < 2, (kind > 1) & (kind < 7)))
        y, start = lq.clone(), self._start(lq)
        if len(augmented):
            small = resize(gt[augmented], self.preset.irm_low.sample_size).clamp(-1, 1)
            y[augmented] = corrected(start[augmented], augment_condition(small, draws.of(augmented)))
        if len(restored):
            faces = start[restored]
            y[restored] = corrected(faces, self._imperfect(gt[restored], faces, lq[restored], draws.of(restored)))
        return gt, y, torch.cat([y, lq], dim=1)

    def _imperfect(self, gt: Tensor, start: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        if self.first_network is None:
            x_0, y, _ = self.first.images(gt, start)
            return torch.lerp(x_0, y, draws.uniform(1, 1, 1).to(gt))
        return self._first_output(start, lq, CONDITION_STEPS, draws)

    def _restore(self, network: nn.Module, y: Tensor, condition: Tensor) -> Tensor:
        if not self.cover:
            return super()._restore(network, y, condition)
        _, lq = condition.chunk(2, dim=1)
        chains = own_chains(lq, y, self.cover, self.start, self.steps, self.alphas_cumprod)
        noise = RowNoise(range(len(y)), y.device)
        return truncated_sample_each(as_model(network, condition), y, chains, get_sampler("dpm++"), noise)

    @torch.no_grad()
    def _start(self, lq: Tensor) -> Tensor:
        """One estimate of the face, which is enough to train with; `start_of_second` takes two, as the method does."""
        if self.estimator is None:
            return lq
        return estimate_of(self.estimator.to(lq.device), lq)

    @torch.no_grad()
    def _first_output(self, start: Tensor, lq: Tensor, steps: int, noise: Noise) -> Tensor:
        """The frozen first model's output; without one, the small start."""
        _, y, _ = self.first.images(start, start)
        if self.first_network is None:
            return y
        _, _, condition = self.first.images(lq, lq)
        timesteps = truncated_timesteps(self.first.start, min(steps, self.first.start + 1))
        return run_chain(self.first_network.to(lq.device), y, condition, timesteps, noise)

    @staticmethod
    def _load_estimator(preset: DiffBFRPreset, weights: Path) -> nn.Module:
        if preset.estimator is None:
            raise UsageError(f"expected no estimator, found one: {preset.name} has no regression network")
        return _frozen(build_estimator(preset.estimator), weights)


def run_chain(network: nn.Module, y: Tensor, condition: Tensor, timesteps: list[int], noise: Noise) -> Tensor:
    """x_0 of a chain from y, by the deterministic sampler of few steps."""
    levels = levels_at(timesteps, linear_alphas_cumprod())
    return truncated_sample(as_model(network, condition), y, levels, get_sampler("dpm++"), noise)


def dense_low_timesteps(t_max: int, draws: Draws) -> Tensor:
    """(n,) in 0..t_max, t = t_max u^2: dense at low t, where eps is hard to predict. u is stratified, so that every
    batch covers the chain and the loss is less noisy."""
    return ((t_max + 1) * draws.stratified() ** 2).long().clamp(max=t_max)


def augment_condition(small: Tensor, draws: Draws) -> Tensor:
    """Each face blurred by a sigma of its own, 0.2 to 1.5 px, and noised by one of its own, 0 to 0.1."""
    n, channels, *_ = small.shape
    sigma = 0.2 + 1.3 * draws.uniform(1)
    kernel = torch.exp(-0.5 * (torch.arange(-5, 6) / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0).to(small)  # (n C, 11)
    rows = F.pad(small, (5, 5, 5, 5), mode="reflect").reshape(1, n * channels, *(side + 10 for side in small.shape[2:]))
    blurred = F.conv2d(
        F.conv2d(rows, kernel[:, None, :, None], groups=len(kernel)), kernel[:, None, None], groups=len(kernel)
    )
    noise = 0.1 * draws.uniform(1, 1, 1).to(small) * draws(*small.shape[1:])
    return blurred.view_as(small) + noise


def _frozen(network: nn.Module, weights: Path) -> nn.Module:
    load_weights(network, weights)
    return network.requires_grad_(False).eval()
