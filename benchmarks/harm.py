"""Who is made worse? Photos from clean to spoilt, restored with the defaults, compared with what they were made from.

    python benchmarks/harm.py --data faces512.parquet --perceptual squeezenet.pth --unseen taef2_encoder.pth

Each face is put into a photo of its own, 64 to 384 px wide, and damaged by one of the levels. `bfr restore` runs twice
with each method: with its defaults, and with `--max-harm 1`, which replaces every face. An oracle that knows the clean
face and takes the better of the two, the face as it was and as the network draws it, is what can be had. Writes
results/harm.md.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import torch
from autoencoder_distance import AutoencoderDistance
from header import header
from numpy.typing import NDArray
from PIL import Image

from bfr_models.degradation.ageing import age
from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.metrics.fidelity import psnr
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8
from bfr_models.training.perceptual import PerceptualDistance, load_perceptual_distance

RESULTS = Path(__file__).parent / "results"
LEVELS = {  # blur in px of a face of 128 px, noise in grey levels, quality of the JPEG
    "clean": (0.0, 0.0, 95),
    "lightly worn": (0.6, 3.0, 80),
    "worn": (1.3, 8.0, 55),
}
PRESETS = ("gfpgan", "difface")
AGED, AGED_JPEG = "aged", 80
ALL_LEVELS = (*LEVELS, *PRESETS, AGED)
SIZES = (64, 384)
BINS = ((64, 128), (128, 224), (224, 385))
COMPARED = (128, 256)  # px: smaller faces are enlarged to be compared, larger ones shrunk
EQUAL = 0.005  # share of the distance by which a change counts as none


@dataclass(frozen=True, eq=False)
class Photo:
    """A face in a photo: `damaged` is what is restored, and the face is the square `side` wide at `place`, `place`."""

    id: str
    level: str
    side: int
    place: int
    clean: Uint8Image
    damaged: Uint8Image

    def face(self, photo: Uint8Image) -> Uint8Image:
        inside = slice(self.place, self.place + self.side)
        return photo[inside, inside]


@dataclass(frozen=True)
class Scores:
    """Of one face against its clean self."""

    perceptual: float
    unseen: float
    psnr: float
    identity: float


@dataclass(frozen=True)
class Outcome:
    """One face: as it was, with the defaults, and replaced."""

    photo: Photo
    before: Scores
    after: Scores
    replaced: Scores

    @property
    def best(self) -> float:
        return min(self.before.perceptual, self.replaced.perceptual)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of clean aligned faces of 512 px")
    parser.add_argument("--perceptual", type=Path, required=True, help="SqueezeNet 1.1's weights")
    parser.add_argument("--unseen", type=Path, required=True, help="the encoder's weights of taef2")
    parser.add_argument("--methods", default="difface,diffbfr,clr_face,estimator")
    parser.add_argument("--presets", default="", help="of the methods, where not the first, in the same order")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use only the first N faces")
    parser.add_argument("--out", type=Path, default=RESULTS / "harm.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos = list(_photos(args.data, args.seed, args.limit))
    distances = (load_perceptual_distance(args.perceptual), AutoencoderDistance(args.unseen))
    recogniser = DlibRecogniser()
    methods = args.methods.split(",")
    presets = args.presets.split(",") if args.presets else [""] * len(methods)
    text, raw = [_explanation()], {}
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "photos.parquet"
        write(photos, source)
        for method, preset in zip(methods, presets, strict=True):
            runs = [_restore(source, Path(scratch) / f"{method}{preset}-{n}", method, preset, n) for n in (0, 1)]
            outcomes = [_outcome(photo, runs, distances, recogniser) for photo in photos]
            name, table = f"{method} {preset}".strip(), _table(outcomes)
            text += [f"## {name}\n", *table, ""]
            raw[name] = [_facts(outcome) for outcome in outcomes]
            print(name, *table, sep="\n", flush=True)
            args.out.write_text(header() + "\n".join(text).rstrip() + "\n")  # a method takes long: none is lost
            args.out.with_suffix(".json").write_text(json.dumps(raw))


def _photos(data: Path, seed: int, limit: int | None) -> Iterator[Photo]:
    for number, row in enumerate(pq.read_table(data, columns=["id", "image"]).to_pylist()[:limit]):
        for turn, level in enumerate(ALL_LEVELS):
            if turn % 2 != number % 2:  # half of the levels each, so that every face is there but not six times
                continue
            rng = np.random.default_rng((seed, number, turn))
            side = round(float(np.exp(rng.uniform(*np.log(SIZES)))))
            yield photo_of(row, level, side, rng)


def photo_of(row: dict[str, Any], level: str, side: int, rng: np.random.Generator) -> Photo:
    """A photo with the face of a row, `side` px wide, damaged."""
    face = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
    small = to_uint8(resize(to_tensor(face)[None], side)[0])
    border = round(0.3 * side)
    clean = np.asarray(cv2.copyMakeBorder(small, *(border,) * 4, cv2.BORDER_REPLICATE), dtype=np.uint8)
    return Photo(f"{row['id']} {level}", level, side, border, clean, _damage(clean, level, side, rng))


def _damage(clean: Uint8Image, level: str, side: int, rng: np.random.Generator) -> Uint8Image:
    if level in PRESETS:
        return degrade(clean, get_preset(level), int(rng.integers(2**62)))
    blur, noise, quality = LEVELS.get(level, (0.0, 0.0, AGED_JPEG))
    image: NDArray[np.floating] = (age(clean, rng) if level == AGED else clean).astype(np.float32)
    if blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), blur * side / 128), np.float32)
    if noise:
        image = image + rng.normal(0, noise, image.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.rint(image).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def write(photos: Sequence[Photo], path: Path) -> None:
    cells = []
    for photo in photos:
        buffer = io.BytesIO()
        Image.fromarray(photo.damaged).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    pq.write_table(pa.table({"id": [photo.id for photo in photos], "image": cells}), path, row_group_size=16)


def _restore(source: Path, out: Path, method: str, preset: str, max_harm: int) -> dict[str, Any]:
    """The rows of a run by id: with the defaults, or with every face replaced."""
    bfr = str(Path(sys.executable).with_name("bfr"))
    command = [bfr, "restore", str(source), str(out), "--method", method, "--input", "photos", "--engine", "local"]
    command += ["--fid", "none", "--lpips", "none", "--recogniser", "none"]
    command += ["--preset", preset] if preset else []
    command += ["--max-harm", "1", "--grain", "keep"] if max_harm else []
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    table = pads.dataset(out / "data", format="parquet").to_table(columns=["id", "restored", "faces"])
    return {row["id"]: row for row in table.to_pylist()}


def _outcome(
    photo: Photo,
    runs: Sequence[dict[str, Any]],
    distances: tuple[PerceptualDistance, AutoencoderDistance],
    recogniser: DlibRecogniser,
) -> Outcome:
    after, replaced = (
        np.asarray(Image.open(io.BytesIO(run[photo.id]["restored"]["bytes"])).convert("RGB")) for run in runs
    )
    faces = [photo.face(image) for image in (photo.damaged, after, replaced, photo.clean)]
    compared = min(max(photo.side, COMPARED[0]), COMPARED[1])
    *tensors, clean = (resize(to_tensor(face)[None], compared).clamp(-1, 1) for face in faces)
    *vectors, own = recogniser.embed(faces)
    perceptual, unseen = distances
    with torch.inference_mode():
        found = [float(perceptual(tensor, clean)) for tensor in tensors]
    scores = [
        Scores(d, u, min(psnr(face, faces[-1]), 99.0), float(vector @ own))
        for d, u, face, vector in zip(found, unseen(tensors, clean), faces[:-1], vectors, strict=True)
    ]
    return Outcome(photo, *scores)


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    head = "| faces | n | before | after | worse | better | untouched | gain | oracle's | kept of it "
    head += "| replaced all: worse | replaced all: gain | unseen: worse | unseen: gain | dB | identity |"
    groups: list[tuple[str, Callable[[Outcome], bool]]] = [("all", lambda _: True)]
    groups += [(level, lambda o, level=level: o.photo.level == level) for level in ALL_LEVELS]  # type: ignore[misc]
    groups += [
        (f"{low} to {high - 1} px", lambda o, low=low, high=high: low <= o.photo.side < high)  # type: ignore[misc]
        for low, high in BINS
    ]
    rows = [_row(name, [o for o in outcomes if belongs(o)]) for name, belongs in groups]
    return [head, "|---" * head.count(" | ") + "|---|", *rows]


def _row(name: str, outcomes: Sequence[Outcome]) -> str:
    before = np.array([o.before.perceptual for o in outcomes])
    after = np.array([o.after.perceptual for o in outcomes])
    replaced = np.array([o.replaced.perceptual for o in outcomes])
    best = np.array([o.best for o in outcomes])
    worse, better = (after > before * (1 + EQUAL)).mean(), (after < before * (1 - EQUAL)).mean()
    gain, possible = 1 - after.mean() / before.mean(), 1 - best.mean() / before.mean()
    unseen = np.array([(o.before.unseen, o.after.unseen) for o in outcomes])
    decibels = np.mean([o.after.psnr - o.before.psnr for o in outcomes])
    identity = np.mean([o.after.identity - o.before.identity for o in outcomes])
    kept = f"{gain / possible:.0%}" if possible > 0.005 else "-"
    return (
        f"| {name} | {len(outcomes)} | {before.mean():.2f} | {after.mean():.2f} | {worse:.1%} | {better:.1%} | "
        f"{(after == before).mean():.1%} | {gain:.1%} | {possible:.1%} | {kept} | "
        f"{(replaced > before * (1 + EQUAL)).mean():.1%} | {1 - replaced.mean() / before.mean():.1%} | "
        f"{(unseen[:, 1] > unseen[:, 0] * (1 + EQUAL)).mean():.1%} | "
        f"{1 - unseen[:, 1].mean() / unseen[:, 0].mean():.1%} | {decibels:+.2f} | {identity:+.4f} |"
    )


def _facts(outcome: Outcome) -> dict[str, Any]:
    scores = {name: vars(getattr(outcome, name)) for name in ("before", "after", "replaced")}
    return {"id": outcome.photo.id, "level": outcome.photo.level, "side": outcome.photo.side, **scores}


def _explanation() -> str:
    worn = "; ".join(f"{name}: blur {b} px, noise {n}, JPEG {q}" for name, (b, n, q) in LEVELS.items())
    return (
        f"`bfr restore --input photos` with the defaults on photos of one face, {SIZES[0]} to {SIZES[1]} px wide. "
        f"{worn} (blur in px of a face of 128 px); {' and '.join(PRESETS)}: the degradation presets; "
        f"{AGED}: as prints do (halftone, paper, scratches, dust), JPEG {AGED_JPEG}.\n\n"
        "Before and after: mean perceptual distance to the clean face (SqueezeNet 1.1's features, through which the "
        f"judge does not look), compared at the face's own size, at least {COMPARED[0]} and at most {COMPARED[1]} px. "
        f"Worse and better: by more than {EQUAL:.1%} of the distance. Gain: share of the mean distance that goes. The "
        "oracle knows the clean face and takes the better of input and replaced face. Unseen: the same two figures by "
        "the features of an autoencoder through which neither the judge nor a network's training has looked. dB and "
        "identity (dlib's cosine): mean changes against the clean face.\n"
    )


if __name__ == "__main__":
    main()
