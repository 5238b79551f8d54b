"""CLR-Face (arXiv 2402.06106): blind face restoration in the latent space of a VQGAN, with identity guidance.

    z_y = E(y), z_irn = E(IRN(y)), both normalised per channel              (z_y conditions every step)
    z_{t0} = alpha(t0) z_irn + sigma(t0) eps                                 the Identity Recovery Network's start;
                                                                             t0 may follow |z_irn - z_y|, coarsely
    dz = (-beta z / 2 - beta grad log p_t(z | z_y)) dt + sqrt(beta) dw       the reverse VP-SDE, or its ODE
    z <- z - w(t) m * grad_z (1 - cos(phi(G(z_0(z))), phi(IRN(y))))          on guided steps; m = mask(z_y, z_irn)
    x = G(VQ(z_0)) + r (IRN(y) - G(VQ(z_irn)))                               quantised once, at the end

The paper gives these parts but for the last line's r; the samplers, the start t0, w, where in the chain to guide and r
are our choices (`CLRFaceOptions`). phi is a recogniser, and never the one that a result is scored by
(`bfr_models.metrics.independence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.diffusion.guidance import Guidance, guided_sample, identity_gradient
from bfr_models.diffusion.sde import VPSDE, Model, Solver, sample
from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.clr_face_presets import SHORTEST, CLRFaceOptions, CLRFacePreset
from bfr_models.networks.latent_networks import LatentMask, LatentScore, conditioned
from bfr_models.networks.mobile_face import MobileFace, crop_from_ffhq
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.vqgan import VQGAN
from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import RowNoise
from bfr_models.types import FaceBatch

CLOSED = 0.05
"""A mask below this is shut: the latent is the unguided one."""

COARSE = 8
"""Places a side that a latent is pooled to, where a face's own start is sought."""


class CLRFace:
    """The IRN, the encoder, the guided reverse chain, the decoder."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        preset, options = cast(CLRFacePreset, resolved.preset), cast(CLRFaceOptions, resolved.options)
        channels = preset.vqgan.latent_channels
        self.size = preset.size
        self._device, self._options = device, options
        self._times = partial(preset.times, options)
        self._solver = Solver(options.sampler, VPSDE(), options.eta)
        self._vqgan = cast(VQGAN, load_component(VQGAN(preset.vqgan), resolved, "vqgan", device))
        score = load_component(LatentScore(preset.score, channels), resolved, "score", device)
        self._score = cast(LatentScore, score)
        self._irn = load_component(SwinIR(preset.irn), resolved, "irn", device)
        self._mask = load_component(LatentMask(preset.mask, channels), resolved, "mask", device)
        self._recogniser = load_component(MobileFace(preset.recogniser), resolved, "recogniser", device)
        if options.checkpointing:
            self._vqgan.save_memory()

    @torch.no_grad()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size); every draw comes from the face's own seed."""
        lq = resize(batch.images.to(self._device), self.size).to(memory_format=torch.channels_last)
        group, last = self._group(len(batch)), len(batch) - 1
        restored = []
        for first in range(0, len(batch), group):
            rows = [min(row, last) for row in range(first, first + group)]  # the last group is filled up
            restored.append(self._restore(lq[rows], [batch.seeds[row] for row in rows]))
        return batch.with_images(torch.cat(restored)[: len(batch)].cpu())

    def _group(self, faces: int) -> int:
        """How many faces go through the chain together."""
        if self._options.own_starts:
            return 1
        return self._options.guide_faces if self._options.guided else faces

    def _restore(self, lq: Tensor, seeds: Sequence[int]) -> Tensor:
        options = self._options
        with autocast(self._device, options.precision):
            degraded, recovered = self._encode(lq), None
            estimate = degraded
            if options.start == "irn" or options.guided or options.residual:
                recovered = (self._irn((lq + 1) / 2).float() * 2 - 1).clamp(-1, 1)
                estimate = self._encode(recovered)
            restored = self._decode(self._restore_latent(degraded, recovered, estimate, RowNoise(seeds, self._device)))
            if recovered is not None and options.residual:
                restored = restored + options.residual * (recovered - self._decode(estimate))
        return restored.clamp(-1, 1)

    def _restore_latent(self, degraded: Tensor, recovered: Tensor | None, estimate: Tensor, noise: RowNoise) -> Tensor:
        options = self._options
        start = estimate if options.start == "irn" else degraded
        if not options.steps:
            return start
        draw = noise(*start.shape[1:])
        times = self._times(self._own_start(degraded, estimate) if options.own_starts else None)
        z = draw if options.start == "noise" else self._solver.sde.diffuse(start, draw, times[0])
        model = conditioned(self._score, degraded)
        if recovered is None or not options.guided:
            return sample(model, z, times, self._solver, noise)
        guidance = self._guidance(model, recovered, degraded, estimate, times)
        return guided_sample(model, z, times, self._solver, guidance, noise)

    def _own_start(self, degraded: Tensor, estimate: Tensor) -> float:
        """The time of a face's start, by what the IRN changed in it; see `CLRFaceOptions`."""
        change = F.adaptive_avg_pool2d(estimate - degraded, COARSE).square().mean().sqrt()
        time = self._solver.sde.time_of(self._options.cover * float(change))
        return min(max(time, SHORTEST), self._options.start_time)

    def _guidance(
        self, model: Model, recovered: Tensor, degraded: Tensor, estimate: Tensor, times: list[float]
    ) -> Guidance:
        """Towards the IRN's face."""
        options = self._options
        target = self._recogniser(crop_from_ffhq(recovered))

        def gradient(z: Tensor, t: float) -> tuple[Tensor, Tensor]:
            return identity_gradient(model, self._embed, self._solver.sde, z, t, target)

        mask = self._mask(degraded, estimate) if options.mask == "learned" else torch.ones_like(degraded[:, :1])
        guided = frozenset(options.guided_times(times))
        return Guidance(gradient, mask * (mask >= CLOSED), options.guidance, guided)

    def _encode(self, image: Tensor) -> Tensor:
        return self._score.normalise(self._vqgan.encode(image).float())

    def _decode(self, latent: Tensor) -> Tensor:
        restored: Tensor = self._vqgan.decode(self._vqgan.quantise(self._score.denormalise(latent))[0])
        return restored.float()

    def _embed(self, start: Tensor) -> Tensor:
        """phi(G(z_0)), not quantised on the way: the gradient would not get through."""
        face = self._vqgan.decode(self._score.denormalise(start)).float()
        return self._recogniser(crop_from_ffhq(face))
