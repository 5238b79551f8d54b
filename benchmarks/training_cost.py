"""What a step of training costs: floating-point operations and memory of each component at 512 px, counted.

    python benchmarks/training_cost.py

Counted on PyTorch's device `meta`, which computes shapes and no numbers: any machine will do. Operations are those of
the loss of one face and of its gradients, frozen networks included (torch's FlopCounterMode: 2 for a multiplication and
an addition, in matrix products, convolutions and attention). State is what a worker holds however small its share is:
weights, their average, Adam's two moments and the gradients, in float32. Activations are the tensors that the backward
pass of one face needs, in float32; bf16 takes a little over half of that, and `--accumulate` bounds how many faces are
held at once. The losses are those without optional networks (`--perceptual`, `--recogniser`, `--irm-low`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from header import header
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bfr_models.networks.latent_networks import LatentScore
from bfr_models.networks.mobile_face import MobileFace
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.vqgan import VQGAN
from bfr_models.training.component import Component
from bfr_models.training.draws import Draws
from bfr_models.training.registry import AT_512, get_component

RESULT = Path(__file__).parent / "results" / "training_cost.md"
STATE_BYTES = 5 * 4  # per parameter
SUSTAINED = 40e12  # operations per second of one GPU: an assumption, to scale by what yours does
FACES = 2  # what the recogniser mixes; all figures are of one


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    lines = [
        "| method | component | parameters, million | TFLOP per face | state, GiB | activations per face, GiB | "
        f"batch | steps | GPU-days at {SUSTAINED / 1e12:.0f} TFLOP/s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    VQGAN._nearest = lambda self, places: (places @ self.codebook.T).argmin(1)  # type: ignore[method-assign]  # no autocast
    for method, name in AT_512:
        component = get_component(method, name, "ffhq512")
        parameters, flops, held = _counted(component)
        recipe = component.recipe
        days = recipe.steps * recipe.batch_size * flops / SUSTAINED / 86400
        lines.append(
            f"| `{method}` | `{name}` | {parameters / 1e6:.1f} | {flops / 1e12:.2f} | "
            f"{parameters * STATE_BYTES / 2**30:.1f} | {held / 2**30:.1f} | {recipe.batch_size} | {recipe.steps:,} | "
            f"{days:.1f} |"
        )
    RESULT.write_text(header() + " ".join(__doc__.split("\n\n")[2].split()) + "\n\n" + "\n".join(lines) + "\n")
    print(RESULT.read_text())


def _counted(component: Component) -> tuple[int, float, float]:
    """(parameters, operations per face, bytes held for the backward pass per face)."""
    with torch.device("meta"):
        network = component.build().train()
        _add_frozen(component)
        gt, lq = torch.zeros(2, FACES, 3, component.recipe.size, component.recipe.size)
    held: dict[int, int] = {}
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: list[Any] = []  # an address is a tensor's own only as long as it is there

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept.append(storage)
            held[storage._cdata] = storage.nbytes()
        return tensor

    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _Nowhere()  # type: ignore[assignment]
    with counter:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = component.loss(network, gt, lq, Draws(0, 0, range(FACES), FACES, "meta"))
        loss.backward()  # type: ignore[no-untyped-call]
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() / FACES, sum(held.values()) / FACES


class _Nowhere:
    """In place of the counter's look at which module an operation is in, which fails where a loss takes a gradient."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _add_frozen(component: Any) -> None:
    """The networks that a component finds trained."""
    preset = getattr(component, "preset", None)
    made = {
        "_vqgan": lambda: VQGAN(preset.vqgan),
        "_score": lambda: LatentScore(preset.score, preset.vqgan.latent_channels),
        "_irn": lambda: SwinIR(preset.irn),
        "_guide": lambda: MobileFace(preset.recogniser),
    }
    wanted = {"Score": ("_vqgan",), "Mask": tuple(made)}.get(type(component).__name__, ())
    for name in wanted:
        setattr(component, name, made[name]().requires_grad_(False).eval())
    if type(component).__name__ == "Mask":
        component._judge = component._guide
    if type(component).__name__ == "DistilledRecogniser":
        component._teacher = MobileFace().requires_grad_(False).eval()


if __name__ == "__main__":
    main()
