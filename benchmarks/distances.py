"""Fréchet distances of restored faces to their ground truth by networks that are no recognisers.

    python benchmarks/distances.py EVALUATION... --detector retinaface.pth [--perceptual squeezenet1_1.pth]

EVALUATION is the output folder of `bfr evaluate`. A recogniser is made not to see how a picture was degraded, so the
Fréchet distance of its features says little of that. FID's Inception is made for another purpose too, and so are these
two: the backbone of RetinaFace (MobileNet 0.25, a detector that had no part in any training here) and SqueezeNet 1.1
(through which the estimator was trained, so that it flatters it). Features: the mean over the places of the last layer.
Writes results/distances.md.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import torch
from PIL import Image
from torch import Tensor

from bfr_models.faces.retinaface import load_network
from bfr_models.metrics.frechet import FeatureSource, FeatureStatistics, frechet_distance
from bfr_models.pixels import Uint8Image, to_tensor
from bfr_models.training.perceptual import CAFFE_MEAN, load_perceptual_distance

RESULTS, BATCH = Path(__file__).parent / "results", 16
Network = Callable[[Tensor], Tensor]
"""(B, 3, H, W), BGR of [0, 255] less `CAFFE_MEAN` -> (B, C, h, w)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", type=Path, nargs="+", metavar="EVALUATION")
    parser.add_argument("--detector", type=Path, required=True, help="RetinaFace's weights, of facexlib")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet 1.1's weights")
    args = parser.parse_args()
    detector = load_network(args.detector).eval()
    networks: dict[str, Network] = {"fd_retinaface": lambda x: detector.body(x)[-1]}
    if args.perceptual:
        networks["fd_squeezenet"] = load_perceptual_distance(args.perceptual).features
    lines = ["`" + __doc__.splitlines()[2].strip() + "`\n"]
    for evaluation in args.evaluations:
        lines += table(evaluation, networks)
    (RESULTS / "distances.md").write_text("\n".join(lines))
    print("\n".join(lines))


def table(evaluation: Path, networks: dict[str, Network]) -> list[str]:
    """One evaluation's methods, from the nearest to the farthest by the first network."""
    runs = {run.parent.name: run for run in sorted(evaluation.glob("*/data"))}
    found: dict[str, list[float]] = {}
    for name, network in networks.items():
        for method, run in runs.items():
            gt, restored = (features(pictures(run, column), network, name) for column in ("gt", "restored"))
            found.setdefault(method, []).append(frechet_distance(restored.gaussian(), gt.gaussian()).value)
    lq = found["passthrough"]
    faces = ds.dataset(next(iter(runs.values())), format="parquet").count_rows()
    lines = [f"{evaluation.name}, {faces} faces; in brackets the share of the input's (`passthrough`)\n"]
    lines += ["| method | " + " | ".join(networks) + " |", "|---" * (len(networks) + 1) + "|"]
    for method, values in sorted(found.items(), key=lambda row: row[1]):
        cells = (f"{value:.4g} ({value / base:.2f})" for value, base in zip(values, lq, strict=True))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def pictures(run: Path, column: str) -> list[Uint8Image]:
    """In the order of the ids."""
    rows = ds.dataset(run, format="parquet").to_table(columns=["id", column]).sort_by("id")[column].to_pylist()
    return [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows]


@torch.inference_mode()
def features(faces: list[Uint8Image], network: Network, name: str) -> FeatureStatistics:
    mean = torch.tensor(CAFFE_MEAN).view(1, 3, 1, 1)
    found = []
    for first in range(0, len(faces), BATCH):
        x = torch.stack([to_tensor(face) for face in faces[first : first + BATCH]])
        found.append(network(((x + 1) * 127.5).flip(1) - mean).mean((2, 3)).double())
    return FeatureStatistics.from_features(torch.cat(found).numpy(), FeatureSource(name, name), "all")


if __name__ == "__main__":
    main()
