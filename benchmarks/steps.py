"""What fewer or more calls of the network are worth, by sampler: the table behind `--quality`.

    python benchmarks/steps.py --data TRAIN.parquet --data MORE.parquet --retinaface RETINAFACE.pth \\
        --perceptual SQUEEZENET.pth

Takes faces of people whom no network was trained on (`bfr_models.training.data`), never the test faces that claims are
made with; degrades them on the papers' scale, and restores each by every variant with the same seed. All else is the
preset's `face128`. Writes results/steps.md.

    features      distance to the clean face by a face detector's features (RetinaFace), in which nothing was trained
    perceptual    distance by SqueezeNet 1.1 (Caffe), in which some networks were
    identity      cosine to the clean face by dlib's ResNet

The differences are to the preset's own options on the same faces, with 95 % intervals over people (bootstrap). CPU
seconds are a face's, in batches of 8 on one thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import claims
import numpy as np
import torch
from header import header

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.metrics.paired import bootstrap_interval
from bfr_models.pixels import Uint8Image, to_tensor
from bfr_models.registry import load_method, resolve_method
from bfr_models.training.judge_distances import Distances
from bfr_models.training.perceptual import PerceptualDistance, load_perceptual_distance

RESULTS = Path(__file__).parent / "results"
PRESET, DEGRADATIONS = "face128", "gfpgan,difface"
COLUMNS = ("features", "perceptual", "identity")
Values = claims.Values
Options = Mapping[str, Any]


def _ddim(steps: int, eta: float) -> Options:
    return {"sampler": "ddim", "steps": steps, "eta": eta}


def _diffbfr(small: int, second: int, texture: int) -> Options:
    return {"steps": small, "steps_high": second, "steps_flow": second, "steps_texture": texture}


# With one or two calls all of DifFace's samplers without noise are the same: the last step gives x_0.
VARIANTS: Mapping[str, Mapping[str, Options]] = {
    "difface": {
        "1 call, one estimate": {"steps": 1, "self_ensemble": False},
        "1 call": {"steps": 1},
        "2 calls": {"steps": 2},
        "4 calls, dpm++, one estimate": {"steps": 4, "self_ensemble": False},
        **{f"{n} calls, dpm++": {"steps": n} for n in (4, 8, 16)},
        **{f"{n} calls, ddim": _ddim(n, 0.0) for n in (4, 16)},
        "4 calls, ddim, eta 0.5": _ddim(4, 0.5),
    },
    "diffbfr": {
        "1 + 1 + 1 calls, one estimate": {**_diffbfr(1, 1, 1), "self_ensemble": False},
        "1 + 2 + 1 calls, one estimate": {**_diffbfr(1, 2, 1), "self_ensemble": False},
        "2 + 2 + 2 calls": _diffbfr(2, 2, 2),
        "2 + 4 + 2 calls, one estimate": {**_diffbfr(2, 4, 2), "self_ensemble": False},
        "2 + 4 + 2 calls": _diffbfr(2, 4, 2),
        "2 + 8 + 2 calls": _diffbfr(2, 8, 2),
        "2 + 16 + 2 calls": _diffbfr(2, 16, 2),
        "2 + 4 calls, no texture": {**_diffbfr(2, 4, 1), "texture": False},
        "2 + 4 + 2 calls, diffusion": {**_diffbfr(2, 4, 2), "second": "diffusion"},
    },
    "clr_face": {
        "1 call, one estimate": {"steps": 1, "self_ensemble": False},
        "1 call": {"steps": 1},
        "2 calls": {"steps": 2},
        **{f"{n} calls, dpm++": {"steps": n} for n in (4, 8)},
        "4 calls, ddim": {"steps": 4, "sampler": "ddim"},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, action="append", help="Parquet that was trained on")
    parser.add_argument("--retinaface", type=Path, required=True, help="RetinaFace with a MobileNet body")
    parser.add_argument("--perceptual", type=Path, required=True, help="SqueezeNet 1.1's weights")
    parser.add_argument("--methods", default=",".join(VARIANTS))
    parser.add_argument("--degradations", default=DEGRADATIONS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--limit", type=int, help="use only N faces, spread over the data")
    parser.add_argument("--out", type=Path, default=RESULTS / "steps.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scores = Scores(held_out(args.data, args.limit), Distances(args.retinaface), args.perceptual)
    lines = [f"{len(scores.faces.clean)} faces of {len(np.unique(scores.faces.people))} people, {args.seeds} seeds.\n"]
    columns = (line.strip().replace("  ", ": ", 1) for line in __doc__.split("\n\n")[3].splitlines())
    lines.append("; ".join(" ".join(column.split()) for column in columns) + ".\n")
    lines.append(" ".join(__doc__.split("\n\n")[4].split()) + "\n")
    for method in args.methods.split(","):
        for degradation in args.degradations.split(","):
            found = measure(scores, method, degradation, args.seeds)
            lines += [*table(method, degradation, found, scores.faces.people), ""]
            print("\n".join(lines[-len(found) - 3 :]), flush=True)
            args.out.write_text(header() + "\n".join(lines).rstrip() + "\n")


def held_out(files: Sequence[Path], limit: int | None) -> claims.Faces:
    """The faces that no training has seen, at the method's size, and whose they are."""
    kept = claims.rows_of(files, held_out=True)
    places = np.linspace(0, len(kept) - 1, min(limit or len(kept), len(kept))).astype(int)
    return claims.faces_of([kept[place] for place in places], DlibRecogniser())


class Scores:
    """Scores restored faces against the clean ones."""

    def __init__(self, faces: claims.Faces, distances: Distances, perceptual: Path) -> None:
        self.faces, self._distances, self._recogniser = faces, distances, DlibRecogniser()
        self._perceptual = load_perceptual_distance(perceptual)

    def __call__(self, restored: Uint8Image) -> dict[str, Values]:
        """(n,) by column."""
        pairs = list(zip(map(to_tensor, restored), map(to_tensor, self.faces.clean), strict=True))
        vectors = claims.vectors_of(self._recogniser, restored)
        return {
            "features": np.array([float(self._distances([face], clean)[0, 0]) for face, clean in pairs]),
            "perceptual": np.array([one_distance(self._perceptual, *pair) for pair in pairs]),
            "identity": np.einsum("nd,nd->n", vectors, self.faces.vectors),
        }


@torch.inference_mode()
def one_distance(perceptual: PerceptualDistance, face: torch.Tensor, clean: torch.Tensor) -> float:
    return float(perceptual(face[None], clean[None]))


def measure(scores: Scores, method: str, degradation: str, seeds: int) -> dict[str, dict[str, Values]]:
    """(n,) by variant and column, means over the seeds; `seconds` among the columns."""
    found: dict[str, dict[str, list[Values]]] = {}
    for seed in range(seeds):
        clean = scores.faces.clean
        lq = np.stack([degrade(face, get_preset(degradation), 1000 * seed + n) for n, face in enumerate(clean)])
        for name, options in {"input": None, **VARIANTS[method]}.items():
            restored, seconds = (lq, 0.0) if options is None else restored_by(method, options, lq, seed)
            columns = scores(restored) | {"seconds": np.full(len(lq), seconds / len(lq))}
            for column, values in columns.items():
                found.setdefault(name, {}).setdefault(column, []).append(values)
    return {name: {c: np.mean(values, axis=0) for c, values in columns.items()} for name, columns in found.items()}


def restored_by(method: str, options: Options, lq: Uint8Image, seed: int) -> tuple[Uint8Image, float]:
    restorer = load_method(resolve_method(method, PRESET, options))
    restorer.restore(claims.batch_of(lq[:1], range(1), seed))  # the first call allocates
    return claims.restore(restorer, lq, seed)


def table(
    method: str, degradation: str, found: Mapping[str, Mapping[str, Values]], people: claims.People
) -> Iterator[str]:
    own = own_variant(method)
    yield f"| {method}, {degradation} | " + " | ".join(f"{c} | more than the preset" for c in COLUMNS) + " | CPU s |"
    yield "|---" * (2 * len(COLUMNS) + 2) + "|"
    for name, columns in found.items():
        cells = []
        for column in COLUMNS:
            gap = by_person(columns[column] - found[own][column], people)
            low, high = bootstrap_interval(gap.tolist())
            cells += [f"{by_person(columns[column], people).mean():.4f}"]
            cells += ["the preset" if name == own else f"{gap.mean():+.4f} [{low:+.4f}, {high:+.4f}]"]
        yield f"| {name} | " + " | ".join(cells) + f" | {columns['seconds'].mean():.2f} |"


def by_person(values: Values, people: claims.People) -> Values:
    """(people,) mean of each person's faces."""
    return np.array([values[people == person].mean() for person in np.unique(people)])


def own_variant(method: str) -> str:
    """The name of the variant that is the preset's."""
    own = resolve_method(method, PRESET).options
    return next(n for n, o in VARIANTS[method].items() if resolve_method(method, PRESET, o).options == own)


if __name__ == "__main__":
    main()
