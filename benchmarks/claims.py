"""What the papers claim, and whether it holds for the weights that ship with this package.

    python benchmarks/claims.py MILD SEVERE --detector retinaface.pth --perceptual squeezenet1_1.pth

MILD and SEVERE are output folders of `bfr evaluate` with the methods passthrough, estimator, difface, diffbfr and
clr_face, of the same faces degraded with the presets gfpgan_extreme and difface_extreme. Writes results/claims.md and,
some faces by every method, results/faces.jpg.

A recogniser is trained to ignore degradation, so the Fréchet distance over dlib's features says little about it. Two
others are reported beside it: over the backbone of RetinaFace (MobileNet 0.25, a detector that had no part in any
training here) and over SqueezeNet 1.1. The networks were trained against SqueezeNet, so it flatters them; so does
`perceptual`, the distance between its features. Features are spatial means of the last layer.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import torch
from header import header
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bfr_models.faces.retinaface import load_network
from bfr_models.metrics.fidelity import sharpness
from bfr_models.metrics.frechet import FeatureSource, FeatureStatistics, frechet_distance
from bfr_models.metrics.paired import bootstrap_interval
from bfr_models.pixels import Uint8Image, to_tensor
from bfr_models.training.perceptual import CAFFE_MEAN, PerceptualDistance, load_perceptual_distance

RESULTS, BATCH = Path(__file__).parent / "results", 16
INPUT, DIFFUSION = "passthrough", ("difface", "diffbfr", "clr_face")
METHODS = (INPUT, "estimator", *DIFFUSION)
COLUMNS = {"psnr": "psnr", "ssim": "ssim", "identity": "identity_similarity_gt", "seconds": "seconds"}
FRECHET = ("fd_dlib", "fd_retinaface", "fd_squeezenet")
SHOWN = slice(0, 102, 17)  # of the faces by id, in the sheet
YES, NO = "**yes**", "no"
HIGHER_IS_BETTER = {"psnr", "ssim", "identity"}
FORMATS = {
    "psnr": ".2f",
    "identity": ".4f",
    "seconds": ".2f",
    "fd_dlib": ".4f",
    "fd_retinaface": ".1f",
    "fd_squeezenet": ".0f",
}
Network = Callable[[Tensor], Tensor]
"""(B, 3, H, W), BGR of [0, 255] less `CAFFE_MEAN` -> (B, C, h, w)"""


@dataclass
class Figures:
    """One method at one strength: values per face, by id, and one Fréchet distance per network."""

    faces: dict[str, NDArray[np.float64]]
    frechet: dict[str, float]

    def mean(self, metric: str) -> float:
        return self.frechet[metric] if metric in self.frechet else float(self.faces[metric].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mild", type=Path)
    parser.add_argument("severe", type=Path)
    parser.add_argument("--detector", type=Path, required=True, help="RetinaFace's weights, of facexlib")
    parser.add_argument("--perceptual", type=Path, required=True, help="SqueezeNet 1.1's weights")
    args = parser.parse_args()
    detector, perceptual = load_network(args.detector).eval(), load_perceptual_distance(args.perceptual)
    networks: dict[str, Network] = {
        "fd_retinaface": lambda x: detector.body(x)[-1],
        "fd_squeezenet": perceptual.features,
    }
    strengths = {"mild": args.mild, "severe": args.severe}
    figures = {strength: measure(folder, networks, perceptual) for strength, folder in strengths.items()}
    (RESULTS / "claims.md").write_text(header() + "\n".join(report(figures)) + "\n")
    sheet(list(strengths.values())).save(RESULTS / "faces.jpg", quality=88)


@torch.inference_mode()
def measure(evaluation: Path, networks: dict[str, Network], distance: PerceptualDistance) -> dict[str, Figures]:
    """By method."""
    gt = pictures(evaluation / INPUT, "gt")
    real = {name: features(gt, network, name).gaussian() for name, network in networks.items()}
    found = {}
    for method in METHODS:
        run = evaluation / method
        rows = ds.dataset(run / "data", format="parquet").to_table(columns=["id", *COLUMNS.values()]).sort_by("id")
        faces = {name: rows[column].to_numpy() for name, column in COLUMNS.items()}
        restored = pictures(run, "restored")
        pairs = list(zip(restored, gt, strict=True))
        faces["perceptual"] = np.array([float(distance(to_tensor(a)[None], to_tensor(b)[None])) for a, b in pairs])
        faces["sharpness"] = np.array([sharpness(a) / sharpness(b) for a, b in pairs])
        frechet = {"fd_dlib": json.loads((run / "run.json").read_text())["statistics"]["fd_dlib_resnet_v1"]["value"]}
        for name, network in networks.items():
            frechet[name] = frechet_distance(features(restored, network, name).gaussian(), real[name]).value
        found[method] = Figures(faces, frechet)
    return found


def pictures(run: Path, column: str) -> list[Uint8Image]:
    """In the order of the ids."""
    rows = ds.dataset(run / "data", format="parquet").to_table(columns=["id", column]).sort_by("id")
    return [np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB")) for cell in rows[column].to_pylist()]


def features(faces: list[Uint8Image], network: Network, name: str) -> FeatureStatistics:
    mean = torch.tensor(CAFFE_MEAN).view(1, 3, 1, 1)
    found = []
    for first in range(0, len(faces), BATCH):
        x = torch.stack([to_tensor(face) for face in faces[first : first + BATCH]])
        found.append(network(((x + 1) * 127.5).flip(1) - mean).mean((2, 3)).double())
    return FeatureStatistics.from_features(torch.cat(found).numpy(), FeatureSource(name, name), "all")


def report(figures: dict[str, dict[str, Figures]]) -> Iterator[str]:
    n = len(figures["mild"][INPUT].faces["psnr"])
    yield f"{n} faces, degraded by gfpgan_extreme (mild) and difface_extreme (severe), face128.\n"
    for strength, methods in figures.items():
        metrics = ["psnr", "ssim", "perceptual", "identity", "sharpness", *FRECHET, "seconds"]
        yield from table(strength, metrics, ((m, [show(f.mean(x), x) for x in metrics]) for m, f in methods.items()))
    yield (
        "`passthrough` is the input. `sharpness`: the mean gradient over that of the ground truth. Lower is better of "
        "`perceptual`, the distances and `seconds`. The claims below: by how much the first is better than the second, "
        "with its 95 % interval over the faces; **yes**, no, or open where the interval holds 0. Of two "
        "distances, which have no interval, their ratio; with so few faces that of dlib's features is mostly bias.\n"
    )
    quality = ["psnr", "perceptual", "identity", *FRECHET]
    against_input = [(strength, m, INPUT) for strength in figures for m in METHODS[1:]]
    yield from compared("Restored is better than the input", figures, quality, against_input)
    against_regression = [(strength, m, "estimator") for strength in figures for m in DIFFUSION]
    looks = ["perceptual", *FRECHET]
    yield from compared("Diffusion is better than regression", figures, looks, against_regression)
    yield from graceful(figures, quality)
    against_difface = [(strength, m, "difface") for strength in figures for m in ("diffbfr", "clr_face")]
    title = "DiffBFR and CLR-Face keep identity better than DifFace, at equal perceptual quality"
    yield from compared(title, figures, ["identity", "perceptual"], against_difface)
    against_pixels = [(strength, "clr_face", m) for strength in figures for m in ("difface", "diffbfr")]
    yield from compared("CLR-Face is faster than the methods on pixels", figures, ["seconds"], against_pixels)


def compared(
    title: str, figures: dict[str, dict[str, Figures]], metrics: list[str], pairs: list[tuple[str, str, str]]
) -> Iterator[str]:
    def lines() -> Iterator[tuple[str, list[str]]]:
        for strength, ours, theirs in pairs:
            a, b = figures[strength][ours], figures[strength][theirs]
            yield f"{strength}: {ours}, {theirs}", [comparison(metric, a, b) for metric in metrics]

    return table(title, metrics, lines())


def graceful(figures: dict[str, dict[str, Figures]], metrics: list[str]) -> Iterator[str]:
    """How much less one loses from mild to severe than the other."""
    lost = {
        method: [better(metric, figures["mild"][method], figures["severe"][method]) for metric in metrics]
        for method in ("difface", "estimator")
    }
    saved = [theirs - ours for ours, theirs in zip(lost["difface"], lost["estimator"], strict=True)]
    cells = [verdict(gain, metric) for gain, metric in zip(saved, metrics, strict=True)]
    return table("DifFace degrades more gracefully than regression", metrics, [("mild to severe", cells)])


def comparison(metric: str, a: Figures, b: Figures) -> str:
    if metric not in FRECHET:
        return verdict(better(metric, a, b), metric)
    ratio = a.frechet[metric] / b.frechet[metric]
    return f"{ratio:.2f} {YES if ratio < 1 else NO}"


def verdict(gain: NDArray[np.float64], metric: str) -> str:
    """`gain` is one number per face, or a single one."""
    if gain.ndim == 0:
        return f"{show(gain, metric, '+')} {YES if gain > 0 else NO}"
    low, high = bootstrap_interval(gain.tolist())
    word = YES if low > 0 else NO if high < 0 else "open"
    return f"{show(gain.mean(), metric, '+')} [{show(low, metric, '+')}, {show(high, metric, '+')}] {word}"


def better(metric: str, a: Figures, b: Figures) -> NDArray[np.float64]:
    """By how much `a` is better than `b`."""
    first, second = (np.asarray(f.frechet[metric] if metric in FRECHET else f.faces[metric]) for f in (a, b))
    return first - second if metric in HIGHER_IS_BETTER else second - first


def show(value: float | NDArray[np.float64], metric: str, sign: str = "") -> str:
    return format(float(value), sign + FORMATS.get(metric, ".3f"))


def table(title: str, metrics: list[str], lines: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    yield f"| {title} | " + " | ".join(metrics) + " |"
    yield "|---" * (len(metrics) + 1) + "|"
    for name, cells in lines:
        yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def sheet(evaluations: list[Path]) -> Image.Image:
    """One row per face: degraded, restored by each method, the ground truth."""
    blocks = []
    for folder in evaluations:
        columns = [pictures(folder / method, "restored")[SHOWN] for method in METHODS]
        columns.append(pictures(folder / INPUT, "gt")[SHOWN])
        blocks += [np.concatenate(row, axis=1) for row in zip(*columns, strict=True)]
    return Image.fromarray(np.concatenate(blocks))


if __name__ == "__main__":
    main()
