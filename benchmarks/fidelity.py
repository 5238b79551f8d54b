"""What the fidelity dial does: how far each method's faces are from the input, at five places of the dial.

    python benchmarks/fidelity.py --data FACES.parquet --perceptual SQUEEZENET.pth

Takes faces of people whom no network was trained on (`bfr_models.training.data`), degrades them, restores them with
every method that has a dial, and writes results/fidelity.md: distances to the input, to the regression network's
estimate and to the ground truth. Draws docs/fidelity.jpg of the two portraits of `bfr demo`.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from diffbfr_ablation import SIZE, Pictures, as_batch, degraded, slices
from header import header
from PIL import Image, ImageDraw

from bfr_models.methods.fidelity import DIALS
from bfr_models.pixels import to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.rng import derive_seed
from bfr_models.training.data import read_faces
from bfr_models.training.perceptual import PerceptualDistance, load_perceptual_distance
from bfr_models.types import FaceBatch
from tasks.make_demo_faces import make_demo_faces

ROOT = Path(__file__).parents[1]
PRESET = "face128"
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
METHODS = tuple(method for method, preset in DIALS if preset == PRESET)
DEGRADATIONS = ("gfpgan_extreme",)
SHEET = ("grace_hopper-1", "eileen_collins-3")  # rows of the demo's dataset
COLUMNS = ("input", *(f"{place:g}" for place in PLACES), "original")
LABEL = 18  # px above a row of faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of aligned faces that was trained on")
    parser.add_argument("--perceptual", type=Path, required=True, help="SqueezeNet 1.1's weights")
    parser.add_argument("--faces", type=int, default=24)
    args = parser.parse_args()
    gt = np.stack([_at_size(face) for face in read_faces(args.data, SIZE).held_out[: args.faces]])
    perceptual = load_perceptual_distance(args.perceptual)
    text = "".join(_table(gt, degradation, perceptual) for degradation in DEGRADATIONS)
    head = (
        f"{len(gt)} held-out faces at {SIZE} px, preset `{PRESET}`, seed 0. RMS differences in grey levels; the "
        "perceptual distance (SqueezeNet 1.1, Caffe training) is not LPIPS. 0.5 is the preset without the dial.\n"
    )
    (ROOT / "benchmarks" / "results" / "fidelity.md").write_text(header() + head + text)
    _sheet().save(ROOT / "docs" / "fidelity.jpg", quality=65, optimize=True)


def _table(gt: Pictures, degradation: str, perceptual: PerceptualDistance) -> str:
    ids = [f"face {i}" for i in range(len(gt))]
    lq = degraded(ids, gt, degradation)
    estimate = restored("estimator", None, ids, lq)
    lines = [
        f"\n`{degradation}`\n",
        "| method | fidelity | RMS to input | RMS to estimate | perceptual to input | perceptual to gt |",
        "|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        for place in PLACES:
            faces = restored(method, place, ids, lq)
            figures = (
                rms(faces, lq), rms(faces, estimate), distance(perceptual, faces, lq), distance(perceptual, faces, gt)
            )  # fmt: skip
            lines.append(f"| {method} | {place:g} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def restored(method: str, fidelity: float | None, ids: Sequence[str], lq: Pictures) -> Pictures:
    restorer = load_method(resolve_method(method, PRESET, fidelity=fidelity))
    done = []
    for rows in slices(len(ids)):
        seeds = tuple(derive_seed(0, i) for i in ids[rows])
        done.append(to_uint8(restorer.restore(FaceBatch(tuple(ids[rows]), as_batch(lq[rows]), seeds)).images))
    return np.concatenate(done)


def rms(faces: Pictures, others: Pictures) -> float:
    """The mean over the faces."""
    squares = (faces.astype(np.float64) - others) ** 2
    return float(np.sqrt(squares.mean(axis=(1, 2, 3))).mean())


@torch.inference_mode()
def distance(perceptual: PerceptualDistance, faces: Pictures, others: Pictures) -> float:
    return float(perceptual(as_batch(faces), as_batch(others)))


def _at_size(face: Pictures) -> Pictures:
    return np.asarray(Image.fromarray(face).resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def _sheet() -> Image.Image:
    """A row of faces for each method and portrait: the input, the places of the dial, the original."""
    with tempfile.TemporaryDirectory() as folder:
        make_demo_faces(folder)
        table = pq.read_table(folder, columns=["id", "image", "gt"]).to_pylist()
    rows = {row["id"]: row for row in table}
    lq, gt = (
        np.stack([np.asarray(Image.open(io.BytesIO(rows[name][column]["bytes"]))) for name in SHEET])
        for column in ("image", "gt")
    )
    height = len(METHODS) * (LABEL + len(SHEET) * SIZE)
    sheet = Image.new("RGB", (len(COLUMNS) * SIZE, height), "white")
    draw = ImageDraw.Draw(sheet)
    for top, method in zip(range(0, height, height // len(METHODS)), METHODS, strict=True):
        for x, label in enumerate(COLUMNS):
            draw.text((x * SIZE + 4, top + 3), f"{method}, {label}" if x == 0 else label, "black")
        for x, faces in enumerate(_columns(method, lq, gt)):
            for y, face in enumerate(faces):
                sheet.paste(Image.fromarray(face), (x * SIZE, top + LABEL + y * SIZE))
    return sheet


def _columns(method: str, lq: Pictures, gt: Pictures) -> Iterator[Pictures]:
    yield lq
    for place in PLACES:
        yield restored(method, place, SHEET, lq)
    yield gt


if __name__ == "__main__":
    main()
