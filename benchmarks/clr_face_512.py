"""CLR-Face's 512 px networks on this machine: one score call and one guided step, with the memory they take.

    python benchmarks/clr_face_512.py [--precision bf16] [--no-checkpointing]

The weights are random: they do not affect what is measured. The guided step goes through the score network, the decoder
and the recogniser and back. Memory is the peak of the process after each part.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from header import header
from torch import Tensor, nn

from bfr_models.diffusion.guidance import identity_gradient
from bfr_models.diffusion.sampling import Step, get_sampler
from bfr_models.diffusion.sde import VPSDE
from bfr_models.methods._loading import autocast
from bfr_models.methods.clr_face_presets import CLR_FACE
from bfr_models.networks.latent_networks import LatentScore, conditioned
from bfr_models.networks.mobile_face import MobileFace, crop_from_ffhq
from bfr_models.networks.precision import keep_float32
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.vqgan import VQGAN

RESULTS = Path(__file__).parent / "results"
T, TO = 0.2, 0.15
N = TypeVar("N", bound=nn.Module)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--no-checkpointing", action="store_true")
    args = parser.parse_args()
    with torch.no_grad(), autocast("cpu", args.precision):
        rows = _measured(checkpointing=not args.no_checkpointing)
    table = "\n".join(["| part | s | peak memory so far, GiB |", "|---|---|---|", *rows])
    text = f"{header()}{torch.get_num_threads()} threads of PyTorch\n\n{table}\n"
    RESULTS.mkdir(exist_ok=True)
    suffix = "-no-checkpointing" if args.no_checkpointing else ""
    (RESULTS / f"clr_face_512-{args.precision}{suffix}.md").write_text(text)
    print(text)


def _measured(checkpointing: bool) -> list[str]:
    preset = next(preset for preset in CLR_FACE if preset.name == "ffhq512")
    torch.manual_seed(0)
    vqgan, irn = _frozen(VQGAN(preset.vqgan)), _frozen(SwinIR(preset.irn))
    score = _frozen(LatentScore(preset.score, preset.vqgan.latent_channels))
    recogniser = _frozen(MobileFace(preset.recogniser))
    if checkpointing:
        vqgan.save_memory()
    lq = torch.rand(1, 3, preset.size, preset.size) * 2 - 1
    rows: list[str] = []

    def timed(name: str, work: Callable[[], Tensor]) -> Tensor:
        started = time.perf_counter()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append(f"| {name} | {time.perf_counter() - started:.1f} | {peak:.1f} |")
        return result

    def guided_step() -> Tensor:
        def embed(start: Tensor) -> Tensor:
            return recogniser(crop_from_ffhq(vqgan.decode(score.denormalise(start)).float()))

        target = recogniser(crop_from_ffhq(lq))
        now, to = VPSDE().levels([T, TO])
        eps, gradient = identity_gradient(model, embed, z, now, target)
        step = Step(get_sampler("dpm++"), model, now, to, z, eps)
        return step.take() - preset.options.guidance * now.sigma * gradient  # type: ignore[attr-defined]

    timed("identity recovery network", lambda: irn((lq + 1) / 2))
    degraded = timed("encoder", lambda: score.normalise(vqgan.encode(lq).float()))
    z, model = torch.randn_like(degraded), conditioned(score, degraded)
    timed("score network, one call", lambda: model(z, T))
    timed(f"guided step, checkpointing {'on' if checkpointing else 'off'}", guided_step)
    timed("decoder, with the search for codes", lambda: vqgan.decode(vqgan.quantise(score.denormalise(z))[0]))
    return rows


def _frozen(network: N) -> N:
    network = keep_float32(network.requires_grad_(False).eval())  # type: ignore[assignment]
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


if __name__ == "__main__":
    main()
