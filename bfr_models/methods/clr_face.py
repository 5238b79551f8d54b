"""CLR-Face (arXiv 2402.06106): blind face restoration in the latent space of a VQGAN, with identity guidance.

    z_y = E(y), z_irn = E(IRN(y)), both normalised per channel              c = z_y, or [z_y, z_irn]
    z_{t0} = alpha(t0) z_irn + sigma(t0) eps                                 the Identity Recovery Network's start;
                                                                             t0 may follow |z_irn - z_y|, coarsely
    dz = (-beta z / 2 - beta grad log p_t(z | c)) dt + sqrt(beta) dw         the reverse VP-SDE, or its ODE
    z <- z - w(t) m * grad_z (1 - cos(phi(G(z_0(z))), phi(IRN(y))))          on guided steps; m = mask(z_y, z_irn)
    x = G(VQ(z_0)) + r (IRN(y) - G(VQ(z_irn)))                               quantised once, at the end, or not at all

The paper conditions on z_y, has no r, and always quantises. The samplers, t0, w and the steps to guide are our choices
(`CLRFaceOptions`). phi is a recogniser, and should not be the one that scores the results
(`bfr_models.metrics.independence`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from bfr_models.diffusion.guidance import Guidance, keep_unmasked
from bfr_models.diffusion.levels import Level
from bfr_models.diffusion.own_start import coarse_change
from bfr_models.diffusion.sampling import Guide, Model, get_sampler, sample
from bfr_models.diffusion.sde import VPSDE
from bfr_models.methods._loading import autocast, load_component
from bfr_models.methods.clr_face_presets import SHORTEST, CLRFaceOptions, CLRFacePreset
from bfr_models.methods.estimator import estimate_of
from bfr_models.networks.estimators import build_estimator
from bfr_models.networks.latent_networks import LatentMask, LatentScore, conditioned
from bfr_models.networks.mobile_face import MobileFace, crop_from_ffhq
from bfr_models.networks.vqgan import VQGAN
from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.rng import RowNoise
from bfr_models.types import FaceBatch


class CLRFace:
    """The IRN, the encoder, the guided reverse chain, the decoder."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        preset, options = cast(CLRFacePreset, resolved.preset), cast(CLRFaceOptions, resolved.options)
        channels = preset.vqgan.latent_channels
        self.size = preset.size
        self._device, self._preset, self._options = device, preset, options
        self._sde, self._sampler = VPSDE(), get_sampler(options.sampler, options.eta)
        self._vqgan = cast(VQGAN, load_component(VQGAN(preset.vqgan), resolved, "vqgan", device))
        score = load_component(LatentScore(preset.score, channels), resolved, "score", device)
        self._score = cast(LatentScore, score)
        self._irn = load_component(build_estimator(preset.irn), resolved, "irn", device)
        self._mask = load_component(LatentMask(preset.mask, channels), resolved, "mask", device)
        self._recogniser = load_component(MobileFace(preset.recogniser), resolved, "recogniser", device)
        if options.checkpointing:
            self._vqgan.save_memory()

    @torch.no_grad()
    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size); every draw comes from the face's own seed."""
        lq = resize(batch.images.to(self._device), self.size).to(memory_format=torch.channels_last)
        restored = []
        with autocast(self._device, self._options.precision):
            for rows in self._groups(len(batch)):
                restored.append(self._restore(lq[rows], [batch.seeds[row] for row in rows]))
        return batch.with_images(torch.cat(restored)[: len(batch)].cpu())

    def _restore(self, lq: Tensor, seeds: Sequence[int]) -> Tensor:
        """One group of faces, by the equations at the top of this file."""
        noise = RowNoise(seeds, self._device)
        degraded = self._encode(lq)
        # An ablation may have no use for the IRN's face; z_irn is then z_y.
        recovered = lq
        if self._options.uses_irn:
            recovered = estimate_of(self._irn, lq, self_ensemble=self._options.self_ensemble)
        estimate = self._encode(recovered)
        levels = self._sde.levels(self._times(degraded, estimate))
        z = self._start(degraded, estimate, levels[0], noise)
        model = conditioned(self._score, self._score.condition(degraded, estimate))
        guide = self._guide(model, degraded, recovered, estimate, levels) if self._options.guided else None
        image = self._decode(sample(model, z, levels, self._sampler, noise, guide=guide))
        return self._with_residual(image, recovered, estimate).clamp(-1, 1)

    def _encode(self, image: Tensor) -> Tensor:
        return self._score.normalise(self._vqgan.encode(image).float())

    def _start(self, degraded: Tensor, estimate: Tensor, level: Level, noise: RowNoise) -> Tensor:
        """z_{t0}"""
        draw = noise(*estimate.shape[1:])
        if self._options.start == "noise":
            return draw
        return level.diffuse(estimate if self._options.start == "irn" else degraded, draw)

    def _guide(
        self, model: Model, degraded: Tensor, recovered: Tensor, estimate: Tensor, levels: Sequence[Level]
    ) -> Guide:
        """Towards the IRN's face, where the mask lets it."""
        options = self._options
        target = self._recogniser(crop_from_ffhq(recovered))
        mask = self._mask(degraded, estimate) if options.mask == "learned" else torch.ones_like(degraded[:, :1])
        times = frozenset(options.guided_times([level.t for level in levels]))
        return keep_unmasked(Guidance(model, self._embed, target, mask * (mask >= CLOSED), options.guidance, times))

    def _embed(self, start: Tensor) -> Tensor:
        """phi(G(z_0)). Not quantised: no gradient would get through the choice of a code."""
        face = self._vqgan.decode(self._score.denormalise(start)).float()
        return self._recogniser(crop_from_ffhq(face))

    def _decode(self, latent: Tensor) -> Tensor:
        z = self._score.denormalise(latent)
        if self._options.quantised:
            z = self._vqgan.quantise(z)[0]
        restored: Tensor = self._vqgan.decode(z)
        return restored.float()

    # Ours, from here on: where a chain starts, what the autoencoder loses, which faces go together. See
    # `CLRFaceOptions`; with `cover` 0, `residual` 0 and `quantised` the method is the paper's.

    def _times(self, degraded: Tensor, estimate: Tensor) -> list[float]:
        """Down to 0 from the common start, or from the face's own."""
        own = self._own_start(degraded, estimate) if self._options.own_starts else None
        return self._preset.times(self._options, own)

    def _own_start(self, degraded: Tensor, estimate: Tensor) -> float:
        """The time whose noise covers the IRN's change of the face: sigma / alpha = cover * rms(change)."""
        (change,) = coarse_change(degraded, estimate, COARSE)
        time = self._sde.time_of(self._options.cover * change)
        return min(max(time, SHORTEST), self._options.start_time)

    def _with_residual(self, image: Tensor, recovered: Tensor, estimate: Tensor) -> Tensor:
        """The image, with a share of what encoding and decoding lose of the IRN's face."""
        if not self._options.residual:
            return image
        return image + self._options.residual * (recovered - self._decode(estimate))

    def _groups(self, faces: int) -> list[list[int]]:
        """The rows that go through the chain together. All groups are of one size, the last filled up with its last
        row: a batch of another size sums in another order, and the guidance magnifies the difference."""
        size = self._options.guide_faces if self._options.guided else faces
        if self._options.own_starts:
            size = 1  # chains of different times cannot share a batch
        return [[min(row, faces - 1) for row in range(first, first + size)] for first in range(0, faces, size)]


CLOSED = 0.05
"""A mask below this is shut: the latent is the unguided one."""

COARSE = 8
"""Places a side that a latent is pooled to, where a face's own start is sought: detail says nothing about it."""
