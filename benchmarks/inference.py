"""What the methods' networks take on this machine, and how near that is to what it can do.

    python benchmarks/inference.py --methods estimator,difface

Images per second of each method's preset, by precision and batch size, with the floating-point operations of a face.
The share is of what the machine reaches in a large matrix product of the same precision, which need not be the most: in
float32 MKL's product is slower on an AMD CPU than oneDNN's convolutions. All variants and the product take turns, and
the fastest of a few rounds counts, so that other work on the machine costs them alike. `plain` is the script that the
field ships: one face at a time in float32, contiguous; but its memory is kept and its blocks are ours, as a method's.
"PSNR" is of a face by the variant against that of `plain`, in dB: 60 is less than a third of a grey level.

`--compile` adds the networks as torch.compile makes them (the option `compile`), in batches of the largest size, and a
table of the seconds from a new process to its first batch of faces: with an empty compile cache, with the cache that
this left (TORCHINDUCTOR_CACHE_DIR; by default in the folder for temporary files), and not compiled. Writes
results/inference.md.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from header import header
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from watching import watched

from bfr_models.device import local_device
from bfr_models.registry import load_method, methods, resolve_method
from bfr_models.types import FaceBatch

RESULTS = Path(__file__).parent / "results"
MATRIX = 1024


@dataclass
class Variant:
    method: str
    preset: str
    precision: str
    batch: int
    plain: bool
    restore: Callable[[FaceBatch], FaceBatch]
    fastest: float = math.inf  # seconds a face
    compiled: bool = False
    flops: float = 0.0  # a face
    first: Tensor | None = None  # of a batch, as restored


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="estimator,difface,diffbfr,clr_face")
    parser.add_argument("--preset", default="face128")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--batches", default="1,2,8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--first-batch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_batch:
        _run(_variant(args.methods, args.preset, args.precisions, int(args.batches), "cpu", compiled=args.compile))
        return
    device = local_device()
    peaks = dict.fromkeys(args.precisions.split(","), 0.0)
    lines = ["| method | precision | faces a call | GFLOP a face | faces/s | times plain | share of a product | PSNR |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name in args.methods.split(","):
        variants = [_variant(name, args.preset, "fp32", 1, device, plain=True)]
        variants += [
            _variant(name, args.preset, precision, int(batch), device)
            for precision in args.precisions.split(",")
            for batch in args.batches.split(",")
        ]
        largest = max(map(int, args.batches.split(",")))
        if args.compile:
            precisions = args.precisions.split(",")
            variants += [_variant(name, args.preset, one, largest, device, compiled=True) for one in precisions]
        for _ in range(args.rounds):
            for variant in variants:
                _run(variant)
            peaks = {precision: max(peak, _peak(precision, device)) for precision, peak in peaks.items()}
        for variant in variants:
            lines.append(_line(variant, variants[0], peaks[variant.precision]))
            print(lines[-1], flush=True)
    if args.compile:
        lines += ["", *_first_batches(args)]
    text = header() + " ".join(" ".join(__doc__.split("\n\n")[2:]).split()) + "\n\n" + "\n".join(lines) + "\n"
    (RESULTS / "inference.md").write_text(text)


def _first_batches(args: argparse.Namespace) -> Iterator[str]:
    """A table: wall seconds of processes that restore one batch and end."""
    yield "| method | precision | empty cache, s | cache kept, s | not compiled, s | cache, MiB |"
    yield "|---|---|---|---|---|---|"
    batch = max(map(int, args.batches.split(",")))
    for name, precision in itertools.product(args.methods.split(","), args.precisions.split(",")):
        command = [sys.executable, __file__, "--first-batch", "--methods", name, "--preset", args.preset]
        command += ["--precisions", precision, "--batches", str(batch)]
        with tempfile.TemporaryDirectory() as cache:
            environment = {"TORCHINDUCTOR_CACHE_DIR": cache}
            seconds = [watched([*command, *more], environment).wall for more in (["--compile"], ["--compile"], [])]
            size = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file()) / 2**20
        line = f"| {name} | {precision} | " + " | ".join(f"{taken:.1f}" for taken in seconds) + f" | {size:.0f} |"
        print(line, flush=True)
        yield line


def _variant(
    name: str, preset: str, precision: str, batch: int, device: str, *, plain: bool = False, compiled: bool = False
) -> Variant:
    spec = next(one for one in methods()[name].presets if one.name == preset)
    options: dict[str, object] = {"precision": precision} if hasattr(spec.options, "precision") else {}
    options |= {"compile": True} if compiled else {}
    restorer: Any = load_method(resolve_method(name, preset, options), device)
    if plain:
        _make_plain(restorer)
    return Variant(name, preset, precision, batch, plain, restorer.restore, compiled=compiled)


def _make_plain(owner: object, seen: set[int] | None = None) -> None:
    """Undoes the memory layout of the networks that an object holds."""
    seen = seen if seen is not None else set()
    for value in vars(owner).values():
        if isinstance(value, nn.Module):
            value.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        elif type(value).__module__.startswith("bfr_models") and hasattr(value, "__dict__") and id(value) not in seen:
            seen.add(id(value))
            _make_plain(value, seen)


def _run(variant: Variant) -> None:
    rows = torch.Generator().manual_seed(0)
    size = next(one for one in methods()[variant.method].presets if one.name == variant.preset).size
    images = torch.nn.functional.interpolate(torch.rand((variant.batch, 3, 8, 8), generator=rows) * 2 - 1, size)
    ids = tuple(str(number) for number in range(variant.batch))
    batch = FaceBatch(ids, images, tuple(range(variant.batch)))
    if variant.first is None and variant.compiled:  # what counts operations does not see into compiled code
        variant.first = variant.restore(batch).images[0]
        return
    if variant.first is None:
        with FlopCounterMode(display=False) as counter:
            variant.first = variant.restore(batch).images[0]
        variant.flops = counter.get_total_flops() / variant.batch
        return
    began = time.perf_counter()
    variant.restore(batch)
    variant.fastest = min(variant.fastest, (time.perf_counter() - began) / variant.batch)


def _line(variant: Variant, plain: Variant, peak: float) -> str:
    assert variant.first is not None and plain.first is not None
    error = float((variant.first - plain.first).square().mean())
    psnr = f"{10 * math.log10(4 / error):.0f}" if error else "equal"
    name = "plain" if variant.plain else variant.precision
    name += ", compiled" if variant.compiled else ""
    flops = variant.flops or plain.flops
    share = flops / variant.fastest / peak
    return (
        f"| {variant.method} | {name} | {variant.batch} | {flops / 1e9:.1f} | {1 / variant.fastest:.1f} | "
        f"{plain.fastest / variant.fastest:.2f} | {share:.0%} | {psnr} |"
    )


def _peak(precision: str, device: str) -> float:
    """Floating-point operations per second of a matrix product."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a = torch.rand((MATRIX, MATRIX), dtype=dtype, device=device)
    fastest = math.inf
    for _ in range(8):
        began = time.perf_counter()
        float((a @ a)[0, 0])
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * MATRIX**3 / fastest


if __name__ == "__main__":
    main()
