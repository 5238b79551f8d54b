"""CLR-Face's components (arXiv 2402.06106) that restore: the VQGAN, the score network on its latents, and the Identity
Recovery Network. Those that guide are in `bfr_models.training.clr_face_guidance`.

Components that train on latents find the VQGAN's weights where the method does: in the package or the cache.
The paper's own objectives are not published; these are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bfr_models.diffusion.sampling import get_sampler, sample
from bfr_models.diffusion.sde import VPSDE
from bfr_models.diffusion.times import FIRST_TIME, times_from
from bfr_models.errors import UsageError
from bfr_models.methods.clr_face_presets import CLRFacePreset
from bfr_models.methods.estimator import estimate_of
from bfr_models.networks.configs import SwinIRConfig
from bfr_models.networks.estimators import build_estimator
from bfr_models.networks.latent_networks import LatentScore, conditioned
from bfr_models.networks.vqgan import VQGAN, perplexity
from bfr_models.rng import RowNoise
from bfr_models.training import difface, ranks
from bfr_models.training.component import AuxiliaryWeights, Component, LossWeights, Recipe, psnr
from bfr_models.training.draws import Draws
from bfr_models.training.patch_discriminator import DiscriminatorTrainer
from bfr_models.training.perceptual import load_perceptual_distance
from bfr_models.training.widen import FIRST, widen
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights, read_checkpoint

N = TypeVar("N", bound=nn.Module)


class Autoencoder(Component):
    """The VQGAN on clean faces: L1 + w_d d + |sg(z) - e|^2 + w_c |z - sg(e)|^2 - w_D b D(x), with a perceptual distance
    d where its network is given, and from step `gan_from` on a patch discriminator D with the hinge loss.

    b makes the gradients of D's term and of the reconstruction's equally long at the image. A code that was the
    nearest of no latent for `IDLE_STEPS` steps is dead: it is moved to a latent of the batch, as long as the learning
    rate does not fall.
    """

    IDLE_STEPS = 100

    def __init__(
        self, preset: CLRFacePreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        super().__init__(recipe, weights)
        self.config = preset.vqgan
        self.perceptual = load_perceptual_distance(auxiliary.perceptual) if auxiliary.perceptual else None
        self._steps, self._last_rate = 0, 0.0
        self._seen: list[tuple[Tensor, ...]] = []  # of the losses since the last step
        self._idle = torch.zeros(self.config.codes, dtype=torch.long)  # steps since each code was used

    def build(self) -> nn.Module:
        return VQGAN(self.config)

    def prepare(self, network: Any, gt: Tensor) -> None:
        """The first codes are latents of the untrained encoder."""
        self._discriminator = DiscriminatorTrainer(gt.device)
        self._steps, self._last_rate, self._idle = 0, 0.0, torch.zeros_like(self._idle, device=gt.device)
        latents = _in_parts(network.encode, gt)
        network.codebook.copy_(_places(latents, self.config.codes))

    def loss(self, network: Any, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        made = network(gt)
        image, z, code = made.image.float(), made.latent, made.quantised.float()
        rebuilt = (image - gt).abs().mean() / 2  # of values in [0, 1]
        if self.perceptual is not None:
            rebuilt = rebuilt + self.weights.perceptual * self.perceptual.to(gt.device)(image, gt)
        commit = self.weights.commitment * (z - code.detach()).square().mean() + (code - z.detach()).square().mean()
        self._seen.append((gt, image.detach(), z.detach(), made.codes))
        if self._steps < self.weights.gan_from:
            return rebuilt + commit
        unreal = -self._discriminator.realness(image)
        return rebuilt + commit + self.weights.gan * _balance(rebuilt, unreal, image) * unreal

    def after_step(self, network: Any, learning_rate: float, draws: Draws) -> None:
        gt, image, z, codes = (torch.cat(seen) for seen in zip(*self._seen, strict=True))
        self._seen.clear()
        self._steps += 1
        if self._steps > self.weights.gan_from:
            self._discriminator.learn(gt, image, learning_rate)
        self._idle += 1
        self._idle[torch.unique(ranks.whole_batch(codes))] = 0
        if learning_rate >= self._last_rate:
            self._revive(network.codebook.data, z, draws)
        self._last_rate = learning_rate

    def _revive(self, codebook: Tensor, z: Tensor, draws: Draws) -> None:
        dead = self._idle >= self.IDLE_STEPS
        if count := int(dead.sum()):
            codebook[dead] = _places(ranks.whole_batch(z), count, draws.common).to(codebook)
            self._idle[dead] = 0

    def state_dict(self) -> dict[str, Any]:
        discriminator = self._discriminator.state_dict()
        return {"critic": discriminator, "steps": self._steps, "rate": self._last_rate, "idle": self._idle}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._discriminator.load_state_dict(state["critic"])
        self._steps, self._last_rate = state["steps"], state["rate"]
        self._idle = state["idle"].to(self._idle.device)

    def evaluate(self, network: Any, gt: Tensor, lq: Tensor) -> dict[str, float]:
        made = network(gt)
        image = made.image.clamp(-1, 1)
        metrics = {
            "psnr": psnr(image, gt),
            "perplexity": perplexity(made.codes, self.config.codes),
            "codes_used": len(made.codes.unique()) / self.config.codes,
            "codes_dead": float((self._idle >= self.IDLE_STEPS).float().mean()),
            "quantisation_error": float((made.quantised - made.latent).square().mean() / made.latent.var()),
        }
        if self.perceptual is not None:
            metrics["perceptual"] = float(self.perceptual.to(gt.device)(image, gt))
        return metrics

    def preview(self, network: Any, gt: Tensor, lq: Tensor) -> list[Tensor]:
        return [gt, network(gt).image.clamp(-1, 1), network.decode(network.encode(gt)).clamp(-1, 1)]


class OnLatents(Component):
    """A component that trains on the latents of a frozen VQGAN."""

    def __init__(
        self, preset: CLRFacePreset, auxiliary: AuxiliaryWeights, recipe: Recipe, weights: LossWeights
    ) -> None:
        super().__init__(recipe, weights)
        self.preset = preset
        self.sde = VPSDE()
        self._built_on: dict[str, str] = {}
        self._irn: nn.Module

    def provenance(self) -> dict[str, Any]:
        return {"trained_with": self._built_on}

    def _recovered(self, lq: Tensor) -> Tensor:
        """The IRN's face, of components that have it as `_irn`: one estimate, which is enough to train with."""
        return estimate_of(self._irn, lq)

    def _frozen(self, component: str, network: N, device: torch.device) -> N:
        path = require_weight(self.preset.weights[component])
        self._built_on[path.name] = load_weights(network, path)
        return network.requires_grad_(False).eval().to(device)


class Score(OnLatents):
    """The score network: mean w(t) (eps - eps_theta([z_t, z_y], t))^2, with z_0 = E(x) and z_y = E(y) by the frozen
    encoder, both normalised; beside z_y is z_irn = E(IRN(y)), by the frozen IRN, in presets whose network sees it.
    t = t_max u^2 with u uniform: half of the draws are in the first quarter, where the method's chain runs. Each face
    is there at `DRAWS` times, each with a noise of its own: its latents cost more than the network's own pass.

    w(t) = sigma^2 / alpha^2, held to [1, `HEAVIEST`]: above the middle of the chain the error of z_0 counts (the
    truncated SNR weighting of arXiv 2202.00512). With w = 1 little is learned there, since eps is nearly z_t itself.
    """

    HEAVIEST = 10.0
    DRAWS = 4

    def build(self) -> nn.Module:
        return LatentScore(self.preset.score, self.preset.vqgan.latent_channels)

    def prepare(self, network: Any, gt: Tensor) -> None:
        self._vqgan = self._frozen("vqgan", VQGAN(self.preset.vqgan), gt.device)
        if self.preset.sees_estimate:
            self._irn = self._frozen("irn", build_estimator(self.preset.irn), gt.device)
        network.measure(_in_parts(self._encode, gt))

    def initialise(self, network: Any, weights: Path) -> None:
        """From its own weights, or from those of a network that sees z_y alone (see `widen`)."""
        channels = self.preset.vqgan.latent_channels
        narrow = LatentScore(replace(self.preset.score, condition_channels=channels), channels)
        first = f"unet.{FIRST}"
        if read_checkpoint(weights)[first].shape != narrow.get_parameter(first).shape:
            super().initialise(network, weights)
            return
        load_weights(narrow, weights)
        widen(network.unet, narrow.unet)
        network.mean.copy_(narrow.mean)  # which may be on another device
        network.std.copy_(narrow.std)

    def loss(self, network: Any, gt: Tensor, lq: Tensor, draws: Draws) -> Tensor:
        t = (self.preset.max_time * draws.uniform(self.DRAWS).flatten().double().square()).clamp_min(FIRST_TIME)
        clean, condition = (x.repeat_interleave(self.DRAWS, dim=0) for x in self._latents(network, gt, lq))
        noise = draws(self.DRAWS, *clean.shape[1:]).flatten(0, 1).to(clean)
        weight = torch.tensor([math.exp(-2 * self.sde.level(u).half_log_snr) for u in t.tolist()]).clamp(
            1, self.HEAVIEST
        )
        losses = self._eps_losses(network, clean, condition, t, noise)
        return (weight.to(losses) * losses).mean()

    def evaluate(self, network: Any, gt: Tensor, lq: Tensor) -> dict[str, float]:
        clean, condition = self._latents(network, gt, lq)
        noise = RowNoise(range(len(gt)), gt.device)(*clean.shape[1:])
        metrics = {}
        for t in (0.02, 0.1, 0.2, 0.4, 0.7):
            times = torch.full((len(gt),), t, dtype=torch.float64)
            metrics[f"eps_loss_{t}"] = float(self._eps_losses(network, clean, condition, times, noise).mean())
        return {"eps_loss": sum(metrics.values()) / len(metrics), **metrics}

    def preview(self, network: Any, gt: Tensor, lq: Tensor) -> list[Tensor]:
        """The degraded face, the reverse chain from it and from noise alone, the face as it was."""
        clean, condition = self._latents(network, gt, lq)
        degraded = condition[:, : clean.shape[1]]
        noise = RowNoise(range(len(gt)), gt.device)
        draw = noise(*degraded.shape[1:])
        restored = []
        for start in (0.4, self.preset.max_time):
            levels = self.sde.levels(times_from(start, 20))
            z = levels[0].diffuse(degraded, draw) if start < self.preset.max_time else draw
            z = sample(conditioned(network, condition), z, levels, get_sampler("dpm++"), noise)
            z = network.denormalise(z)
            restored.append(self._vqgan.decode(self._vqgan.quantise(z)[0]).clamp(-1, 1))
        return [lq, *restored, gt]

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor:
        return self._vqgan.encode(image).float()

    @torch.no_grad()
    def _latents(self, network: Any, gt: Tensor, lq: Tensor) -> tuple[Tensor, Tensor]:
        """z_0, and what the network is conditioned on."""
        faces = [gt, lq]
        if self.preset.sees_estimate:
            faces.append(self._recovered(lq))
        clean, degraded, *estimate = network.normalise(self._encode(torch.cat(faces))).chunk(len(faces))
        return clean, network.condition(degraded, *estimate)

    def _eps_losses(self, network: Any, clean: Tensor, condition: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """(B,)"""
        z = self.sde.diffuse(clean, noise, t)
        return (network(z, condition, t.to(z)).float() - noise).square().flatten(1).mean(1)


class IdentityRecovery(difface.Estimator):
    """The IRN: DifFace's regression network, trained with more weight on identity."""

    @staticmethod
    def network_config(preset: Any) -> SwinIRConfig:
        if not isinstance(preset.irn, SwinIRConfig):
            raise UsageError(
                f"expected a preset whose IRN is a SwinIR, found {preset.name}: its IRN is DifFace's estimator"
            )
        config: SwinIRConfig = preset.irn
        return config


def _in_parts(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """The function of a batch that is too large for one call."""
    return torch.cat([function(part) for part in torch.split(batch, 16)])


def _places(latents: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """(count, C): the latents at places drawn at random."""
    flat = latents.movedim(1, -1).flatten(0, -2)
    return flat[torch.randint(len(flat), (count,), generator=generator).to(flat.device)]


def _balance(loss: Tensor, other: Tensor, image: Tensor) -> Tensor:
    """The factor that makes the gradient of `other` at the image as long as that of `loss`: VQGAN's adaptive weight,
    which its authors measure at the last layer."""
    gradients = (torch.autograd.grad(x, image, retain_graph=True)[0] for x in (loss, other))
    one, two = (ranks.total(gradient.square().sum()).sqrt() for gradient in gradients)
    return (one / two.clamp_min(1e-6)).clamp(max=1e4)
