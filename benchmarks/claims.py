"""What each method is worth, by measures that doing nothing cannot win; and which of the papers' claims hold.

    python benchmarks/claims.py --data faces256-test.parquet --retinaface retinaface.pth --recogniser retail-0095.onnx

Faces of 128 px, degraded by the papers' presets and by their extreme forms, each with three seeds, and restored by
every method with every face replaced. The data are clean aligned faces with a column `person`; whoever is there twice
can be recognised. `--held-out` takes what was trained on, and of it the people whom no training has seen. Writes
results/claims.md and, of some faces, results/claims.jpg; `--sheets DIR` writes 24 faces of each preset, twice as large,
the six among them that the methods spoil most.

    dB          against the clean face
    features    distance of a face detector's features (RetinaFace, MobileNet 0.25), in which no network was trained
    pyramid     distance of normalised Laplacian pyramids, which has no network
    worse       share of the faces further from the clean one than the input is, by features
    rank-1      share of the faces whose nearest clean photo, by dlib's ResNet, is another one of the same person
    TAR         share of them nearer to that other photo than 99 % of all strangers' are
    rank-1 b    the same by Open Model Zoo's face-reidentification-retail-0095; CLR-Face is guided by a student of it
    TAR b       the same
    moved       grey levels (RMS) from the regression network's face, over that network's own error

All with 95 % intervals over people (bootstrap), whose faces and seeds are not independent of each other.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from header import header
from numpy.typing import NDArray
from PIL import Image

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.metrics.fidelity import psnr
from bfr_models.metrics.paired import bootstrap_interval
from bfr_models.networks.mobile_face import crop_from_ffhq
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8
from bfr_models.registry import load_method, resolve_method
from bfr_models.training.data import is_held_out
from bfr_models.training.judge_distances import Distances
from bfr_models.types import FaceBatch, Restorer

RESULTS = Path(__file__).parent / "results"
SIZE, BATCH, SEEDS, MOST_FALSE = 128, 8, 3, 0.01
MILD, SEVERE = "gfpgan", "difface"
PRESETS = (MILD, SEVERE, "gfpgan_extreme", "difface_extreme")
INPUT, REGRESSION, DIFFUSION = "passthrough", "estimator", ("difface", "diffbfr", "clr_face")
METHODS = (INPUT, REGRESSION, *DIFFUSION)
RECOGNISED = ("rank-1", "TAR", "rank-1 b", "TAR b")
COLUMNS = ("dB", "features", "pyramid", "worse", *RECOGNISED, "moved")
LOWER_IS_BETTER = {"features", "pyramid", "worse", "seconds"}
FORMATS = {"dB": "{:.2f}", "features": "{:.3f}", "pyramid": "{:.3f}", "seconds": "{:.3f}"}  # else a percentage
SHOWN, WORST = 24, 6
Values = NDArray[np.float64]
Recognise = Callable[[Uint8Image], Values]
"""(n, H, W, 3) to (n, d) of unit length."""
People = NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Faces:
    """Clean ones, at `SIZE`, and whose they are."""

    clean: Uint8Image  # (n, SIZE, SIZE, 3)
    people: People  # (n,)
    recognisers: Mapping[str, Recognise]  # by what follows the names of their columns
    vectors: Mapping[str, Values]  # of the clean faces, by each


@dataclass(eq=False)
class Figures:
    """Of one method on one preset: (seeds * n,) values by name, and the faces of the first seed."""

    columns: dict[str, list[Values]] = field(default_factory=dict)
    pictures: Uint8Image | None = None

    def add(self, name: str, values: Values) -> None:
        self.columns.setdefault(name, []).append(values)

    def by_person(self, name: str, people: People) -> Values:
        """(people,) mean of each person's faces and seeds; nan where there is none."""
        values = np.mean(self.columns[name], axis=0)
        found = np.array([values[people == person].mean() for person in np.unique(people)])
        return found[np.isfinite(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, action="append", help="Parquet of clean aligned faces, with `person`"
    )
    parser.add_argument("--held-out", action="store_true", help="of what was trained on: only people held out from it")
    parser.add_argument("--retinaface", type=Path, required=True, help="RetinaFace with a MobileNet body")
    parser.add_argument("--recogniser", type=Path, required=True, help="face-reidentification-retail-0095.onnx")
    parser.add_argument("--limit", type=int, help="use only the first N faces")
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--out", type=Path, default=RESULTS / "claims.md")
    parser.add_argument("--sheets", type=Path, help="folder of the large sheets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    distances = Distances(args.retinaface)
    recognisers = {"": by_dlib(DlibRecogniser()), " b": by_network(cv2.dnn.readNetFromONNX(str(args.recogniser)))}
    faces = faces_of(rows_of(args.data, held_out=args.held_out)[: args.limit], recognisers)
    methods = {name: load_method(resolve_method(name, "face128")) for name in METHODS}
    presets = args.presets.split(",")
    found, damaged = {}, {}
    for preset in presets:
        found[preset], damaged[preset] = measure(faces, preset, methods, distances)
        print("\n".join(table(preset, found[preset], faces.people)), flush=True)
    args.out.write_text(header() + "\n".join(report(found, faces)).rstrip() + "\n")
    few = np.linspace(0, len(faces.clean) - 1, 6).astype(int)
    strips = [sheet(found[preset], damaged[preset], faces, few, 1) for preset in presets[:2]]
    Image.fromarray(np.concatenate(strips)).save(args.out.with_suffix(".jpg"), quality=88)
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        for preset in presets:
            picked = shown(found[preset], len(faces.clean))
            large = sheet(found[preset], damaged[preset], faces, picked, 2)
            Image.fromarray(large).save(args.sheets / f"{args.out.stem}-{preset}.png")


def rows_of(files: Sequence[Path], *, held_out: bool) -> list[dict[str, Any]]:
    """All faces, or those of people whom no training has seen (`bfr_models.training.data.is_held_out`)."""
    rows = pa.concat_tables([pq.read_table(file, columns=["image", "person"]) for file in files]).to_pylist()
    return [row for row in rows if not held_out or is_held_out(row["person"], row["image"]["bytes"])]


def by_dlib(recogniser: DlibRecogniser) -> Recognise:
    return lambda faces: recogniser.embed(list(faces)).astype(np.float64)


def by_network(network: cv2.dnn.Net) -> Recognise:
    """One face at a time: the file's batch is of one."""

    def vector(face: Uint8Image) -> Values:
        crop = crop_from_ffhq(to_tensor(face)[None])
        network.setInput(((crop + 1) * 127.5).flip(1).numpy())  # BGR
        values = network.forward().flatten().astype(np.float64)
        return np.asarray(values / np.linalg.norm(values))

    return lambda faces: np.stack([vector(face) for face in faces])


def faces_of(rows: Sequence[Mapping[str, Any]], recognisers: Mapping[str, Recognise]) -> Faces:
    """Rows have an image and a person; None stands for someone who has no second face here."""
    originals = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")) for row in rows]
    clean = np.stack([to_uint8(resize(to_tensor(face)[None], SIZE)[0].clamp(-1, 1)) for face in originals])
    people = np.array([row["person"] or str(number) for number, row in enumerate(rows)])
    return Faces(clean, people, recognisers, {name: recognise(clean) for name, recognise in recognisers.items()})


def measure(
    faces: Faces, preset: str, methods: Mapping[str, Restorer], distances: Distances
) -> tuple[dict[str, Figures], Uint8Image]:
    """By method, and the damaged faces of the first seed."""
    found = {name: Figures() for name in methods}
    first: list[Uint8Image] = []
    for seed in range(SEEDS):
        lq = np.stack([degrade(face, get_preset(preset), 1000 * seed + n) for n, face in enumerate(faces.clean)])
        first.append(lq)
        before = np.array([])
        estimate = lq
        for name, method in methods.items():
            restored, seconds = restore(method, lq, seed)
            estimate = restored if name == REGRESSION else estimate
            mine = found[name]
            mine.pictures = restored if mine.pictures is None else mine.pictures
            pairs = list(zip(restored, faces.clean, strict=True))
            far = np.stack([distances([to_tensor(a)], to_tensor(b))[0].numpy() for a, b in pairs])
            before = far[:, 0] if name == INPUT else before
            mine.add("dB", np.array([psnr(a, b) for a, b in pairs]))
            mine.add("features", far[:, 0])
            mine.add("pyramid", far[:, 1])
            mine.add("worse", (far[:, 0] > before).astype(float))
            for suffix, recognise in faces.recognisers.items():
                for column, values in recognised(recognise(restored), faces.vectors[suffix], faces.people).items():
                    mine.add(column + suffix, values)
            mine.add("moved", rms(restored, estimate) / rms(estimate, faces.clean).mean())
            mine.add("seconds", np.full(len(restored), seconds / len(restored)))
    return found, first[0]


def restore(method: Restorer, lq: Uint8Image, seed: int) -> tuple[Uint8Image, float]:
    began, parts = time.process_time(), []
    for start in range(0, len(lq), BATCH):
        numbers = range(start, min(start + BATCH, len(lq)))
        parts.append(to_uint8(method.restore(batch_of(lq[start : start + BATCH], numbers, seed)).images))
    return np.concatenate(parts), time.process_time() - began


def batch_of(lq: Uint8Image, numbers: range, seed: int) -> FaceBatch:
    images = torch.stack([to_tensor(face) for face in lq])
    return FaceBatch(tuple(map(str, numbers)), images, tuple(10_000 * seed + n for n in numbers))


def recognised(vectors: Values, clean: Values, people: People) -> dict[str, Values]:
    """Of each restored face whether it is known by another photo of its person; nan where there is none."""
    scores = vectors @ clean.T
    np.fill_diagonal(scores, -np.inf)  # its own clean self
    is_same = people[:, None] == people[None, :]
    own = np.where(is_same, scores, -np.inf).max(axis=1)
    strangers = np.where(is_same, -np.inf, scores)
    threshold = np.quantile(scores[~is_same], 1 - MOST_FALSE)
    is_known = np.isfinite(own)
    rank, accepted = own > strangers.max(axis=1), own > threshold
    return {
        "rank-1": np.where(is_known, rank, np.nan).astype(float),
        "TAR": np.where(is_known, accepted, np.nan).astype(float),
    }


def rms(a: Uint8Image, b: Uint8Image) -> Values:
    """(n,) grey levels."""
    return np.asarray(np.sqrt(((a.astype(float) - b) ** 2).mean(axis=(1, 2, 3))))


def report(found: Mapping[str, Mapping[str, Figures]], faces: Faces) -> Iterator[str]:
    people = np.unique(faces.people)
    yield f"{len(faces.clean)} faces of {len(people)} people at {SIZE} px, {SEEDS} seeds each, every face replaced.\n"
    columns = (line.strip().replace("  ", ": ", 1) for line in __doc__.split("\n\n")[3].splitlines())
    yield "; ".join(" ".join(column.split()) for column in columns) + ".\n"
    for preset, methods in found.items():
        yield from [*table(preset, methods, faces.people), ""]
    yield "By how much the first is better than the second, with its interval: **yes**, no, or open where it holds 0.\n"
    pairs = [(m, INPUT) for m in METHODS[1:]]
    yield from compared("Restored is better than the input", found, faces, (*COLUMNS[:3], *RECOGNISED), pairs)
    pairs = [(m, REGRESSION) for m in DIFFUSION]
    yield from compared("Diffusion is better than regression", found, faces, COLUMNS[:-1], pairs)
    pairs = [(m, "difface") for m in ("diffbfr", "clr_face")]
    yield from compared(
        "DiffBFR and CLR-Face keep the person better than DifFace", found, faces, ("features", *RECOGNISED), pairs
    )
    pairs = [("clr_face", m) for m in ("difface", "diffbfr")]
    yield from compared("CLR-Face is faster than the methods on pixels", found, faces, ("seconds",), pairs)


def table(preset: str, methods: Mapping[str, Figures], people: People) -> Iterator[str]:
    columns = (*COLUMNS, "seconds")
    yield f"| {preset} | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, figures in methods.items():
        cells = [_cell(column, figures.by_person(column, people)) for column in columns]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _cell(column: str, values: Values) -> str:
    if not len(values):
        return "-"
    low, high = bootstrap_interval(values.tolist())
    return f"{_show(column, values.mean())} [{_show(column, low)}, {_show(column, high)}]"


def _show(column: str, value: float) -> str:
    return FORMATS.get(column, "{:.1%}").format(value)


def compared(
    title: str,
    found: Mapping[str, Mapping[str, Figures]],
    faces: Faces,
    columns: Sequence[str],
    pairs: Sequence[tuple[str, str]],
) -> Iterator[str]:
    yield f"| {title} | " + " | ".join(columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for preset, methods in found.items():
        for ours, theirs in pairs:
            cells = []
            for column in columns:
                a, b = (methods[name].by_person(column, faces.people) for name in (ours, theirs))
                cells.append(_verdict(column, b - a if column in LOWER_IS_BETTER else a - b))
            yield f"| {preset}: {ours}, {theirs} | " + " | ".join(cells) + " |"
    yield ""


def _verdict(column: str, gain: Values) -> str:
    if not len(gain):
        return "-"
    low, high = bootstrap_interval(gain.tolist())
    word = "**yes**" if low > 0 else "no" if high < 0 else "open"
    return f"{_cell(column, gain)} {word}"


def shown(methods: Mapping[str, Figures], count: int) -> NDArray[np.int_]:
    """The worst faces by what the methods do to them, and others evenly from all."""
    before = methods[INPUT].columns["features"][0]
    ratio = np.mean([methods[name].columns["features"][0] / before for name in METHODS[1:]], axis=0)
    worst = np.argsort(-ratio)[:WORST]
    others = [n for n in np.linspace(0, count - 1, SHOWN).astype(int) if n not in worst]
    return np.array([*worst, *others[: SHOWN - len(worst)]])


def sheet(
    methods: Mapping[str, Figures], damaged: Uint8Image, faces: Faces, picked: NDArray[np.int_], scale: int
) -> Uint8Image:
    """One row per face: as it was damaged, by each method, and clean."""
    columns = [damaged, *(figures.pictures for name, figures in methods.items() if name != INPUT), faces.clean]
    rows = [np.concatenate([c[n] for c in columns if c is not None], axis=1) for n in picked]
    return np.concatenate(rows).repeat(scale, axis=0).repeat(scale, axis=1)


if __name__ == "__main__":
    main()
