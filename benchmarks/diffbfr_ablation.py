"""What each part of DiffBFR does: truncated start, cascade, flow, texture model, and how far up the chains start.

    python benchmarks/diffbfr_ablation.py --data faces.parquet [--perceptual squeezenet1_1.pth] [--grid faces.png]

Degrades the faces as `bfr degrade --size 128 --seed 0` does, restores them with every variant below at equal steps
(the preset's where a row does not say otherwise), and writes results/diffbfr_ablation.json and .png. Rows
already in the JSON for the same weights and faces are not computed again.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from header import measured
from numpy.typing import NDArray
from PIL import Image

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.metrics.fidelity import psnr, sharpness, ssim
from bfr_models.metrics.frechet import FeatureSource, FeatureStatistics, Gaussian, frechet_distance
from bfr_models.metrics.identity import cosine
from bfr_models.pixels import face_tensor, to_tensor, to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.rng import derive_seed
from bfr_models.training.perceptual import PerceptualDistance, load_perceptual_distance
from bfr_models.types import FaceBatch

RESULTS = Path(__file__).parent / "results"
SEED, SIZE, BATCH = 0, 128, 16
START_LOW = (60, 130, 200, 300, 450)
TEXTURE = (10, 20, 40, 80)
PARTS: dict[str, dict[str, Any]] = {
    "all": {},
    "diffusion in place of the flow": {"second": "diffusion"},
    "diffusion, from the lq face": {"second": "diffusion", "start": "lq"},
    "diffusion, from the lq face, one timestep for all": {
        "second": "diffusion", "start": "lq", "cover": 0.0, "start_high": 10
    },
    "start from pure noise": {"truncated": False},
    "without texture": {"texture": False},
    "without texture, start from pure noise": {"texture": False, "truncated": False},
    **{
        f"single model from {n}, without texture": {
            "second": "diffusion", "cascade": False, "texture": False, "cover": 0.0, "start_high": n
        }
        for n in (50, 100)
    },
}  # fmt: skip
METRICS = ("psnr", "ssim", "identity", "perceptual", "frechet", "sharpness")
PLOTTED = {"psnr": "PSNR, dB", "identity": "identity to gt", "perceptual": "perceptual distance", "frechet": "Fréchet"}

Pictures = NDArray[np.uint8]
"""(n, H, W, 3)"""


class Scores:
    """Scores sets of images against one ground truth, whose embeddings are computed once."""

    def __init__(self, gt: Pictures, perceptual: PerceptualDistance | None) -> None:
        self._gt, self._perceptual, self._recogniser = gt, perceptual, DlibRecogniser()
        self._sharpness = np.mean([sharpness(face) for face in gt])
        self._vectors = self._recogniser.embed(list(gt))
        self._gaussian = self._fit(self._vectors)

    def __call__(self, pictures: Pictures) -> dict[str, float | None]:
        pairs = list(zip(pictures, self._gt, strict=True))
        vectors = self._recogniser.embed(list(pictures))
        return {
            "psnr": float(np.mean([psnr(*pair) for pair in pairs])),
            "ssim": float(np.mean([ssim(*pair) for pair in pairs])),
            "identity": float(cosine(vectors, self._vectors).mean()),
            "perceptual": self._distance(pictures),
            "frechet": frechet_distance(self._fit(vectors), self._gaussian).value,
            "sharpness": float(np.mean([sharpness(face) for face in pictures]) / self._sharpness),
        }

    def _fit(self, vectors: NDArray[np.float32]) -> Gaussian:
        source = FeatureSource(self._recogniser.name, self._recogniser.sha256)
        return FeatureStatistics.from_features(vectors, source, "all").gaussian()

    @torch.inference_mode()
    def _distance(self, pictures: Pictures) -> float | None:
        if self._perceptual is None:
            return None
        parts = [
            float(self._perceptual(as_batch(pictures[rows]), as_batch(self._gt[rows]))) * len(pictures[rows])
            for rows in slices(len(pictures))
        ]
        return sum(parts) / len(pictures)


def arguments(description: str | None, grid: str) -> argparse.ArgumentParser:
    """Options shared by every ablation on degraded faces."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of aligned faces")
    parser.add_argument("--degradations", default="gfpgan_extreme,difface_extreme")
    parser.add_argument("--faces", type=int, help="how many; all by default")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet 1.1's weights, for the perceptual distance")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--grid", type=Path, help=grid)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def main() -> None:
    args = arguments(__doc__, "PNG of some faces: lq, without texture, all, gt").parse_args()
    ids, gt = read_faces(args.data, args.faces)
    scores = Scores(gt, load_perceptual_distance(args.perceptual) if args.perceptual else None)
    file = args.out / "diffbfr_ablation.json"
    base = resolve_method("diffbfr", "face128", {"precision": args.precision})
    about = {"method": base.description, "data": args.data.name, "faces": len(ids), "seed": SEED}
    results = json.loads(file.read_text()) if file.exists() else {}
    if results.get("about") != json.loads(json.dumps(about)):
        results = {"about": about, "rows": {}}
    results.pop("measured", None)
    for degradation in args.degradations.split(","):
        lq = degraded(ids, gt, degradation)
        rows = results["rows"].setdefault(degradation, {})
        if "input" not in rows:
            rows["input"] = scores(lq)
        for name, changes in variants().items():
            if name in rows:
                continue
            restored, seconds = restore("diffbfr", ids, lq, {"precision": args.precision, **changes}, args.device)
            rows[name] = {"options": changes, **scores(restored), "seconds": seconds}
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"measured": measured(), **results}, indent=1) + "\n")
            print(
                degradation, name, {k: round(v, 4) for k, v in rows[name].items() if isinstance(v, float)}, flush=True
            )
    plot(results["rows"], file.with_suffix(".png"))
    print(markdown(results["rows"]))
    if args.grid:
        columns = [
            restore("diffbfr", ids[:6], lq[:6], {"texture": texture}, args.device)[0] for texture in (False, True)
        ]
        grid = np.concatenate([np.concatenate(list(c)) for c in (lq[:6], *columns, gt[:6])], axis=1)
        Image.fromarray(grid).save(args.grid)


def variants() -> dict[str, dict[str, Any]]:
    """Name -> options."""
    low = {f"start_low {n}": {"start_low": n} for n in START_LOW}
    return PARTS | low | {f"texture_timestep {m}": {"texture_timestep": float(m)} for m in TEXTURE}


def read_faces(path: Path, count: int | None) -> tuple[list[str], Pictures]:
    table = pq.read_table(path, columns=["id", "image"])[: count or None]
    pictures = [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in table["image"].to_pylist()]
    return [str(i) for i in table["id"].to_pylist()], np.stack([to_uint8(face_tensor(p, SIZE)) for p in pictures])


def degraded(ids: Sequence[str], gt: Pictures, preset: str) -> Pictures:
    return np.stack([degrade(g, get_preset(preset), derive_seed(SEED, i)) for i, g in zip(ids, gt, strict=True)])


def restore(
    method: str, ids: Sequence[str], lq: Pictures, options: Mapping[str, Any], device: str
) -> tuple[Pictures, float]:
    """The restored faces, and seconds per face."""
    restorer = load_method(resolve_method(method, "face128", options), device)
    started, done = time.perf_counter(), []
    for rows in slices(len(ids)):
        seeds = tuple(derive_seed(SEED, i) for i in ids[rows])
        done.append(to_uint8(restorer.restore(FaceBatch(tuple(ids[rows]), as_batch(lq[rows]), seeds)).images))
    return np.concatenate(done), (time.perf_counter() - started) / len(ids)


def as_batch(pictures: Pictures) -> torch.Tensor:
    return torch.stack([to_tensor(picture) for picture in pictures])


def slices(n: int) -> Iterator[slice]:
    return (slice(first, min(first + BATCH, n)) for first in range(0, n, BATCH))


def plot(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Each metric over N of the first chain and over M of the last; dashed: the degraded input."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    metrics = [m for m in PLOTTED if all(of["input"][m] is not None for of in rows.values())]
    sweeps = {"start_low": START_LOW, "texture_timestep": TEXTURE}
    figure, axes = plt.subplots(2, len(metrics), figsize=(3.2 * len(metrics), 5.4), sharex="row", layout="constrained")
    for (option, values), line in zip(sweeps.items(), axes, strict=True):
        for metric, axis in zip(metrics, line, strict=True):
            for number, (degradation, of) in enumerate(rows.items()):
                y = [of[f"{option} {v}"][metric] for v in values]
                axis.plot(values, y, "o-", color=f"C{number}", label=degradation)
                axis.axhline(of["input"][metric], color=f"C{number}", linestyle="--", linewidth=0.8)
            axis.set(title=PLOTTED[metric], xlabel=option)
    axes[0, 0].legend()
    figure.savefig(path, dpi=110)


def markdown(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"

    lines: list[str] = []
    for degradation, of in rows.items():
        lines += ["", f"| {degradation} | " + " | ".join(METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
        lines += [f"| {name} | " + " | ".join(cell(row[m]) for m in METRICS) + " |" for name, row in of.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
