"""What dlib's cosine is for strangers and for two photos of one person, and from which size on it tells them apart.

    python benchmarks/identity_scale.py --faces A.parquet --others B.parquet --network FACE.onnx [--source congress]

Two sets of aligned faces, of which some people are in both. Who these are is decided by another network than the one
that is measured (OpenVINO's face-reidentification-retail-0095): mutual nearest neighbours above --same. Look at the
sheet: each pair must be one person. Above --copy it is one photo. All other pairs below 0.5 are strangers.
Writes results/identity_scale.md; `bfr_models/metrics/identity_scale.py` has the marks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
from header import header
from numpy.typing import NDArray
from PIL import Image

from bfr_models.faces.align import align
from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.faces.template import FFHQ_5, at_size
from bfr_models.pixels import Uint8Image
from tasks.images.codec import decode

RESULTS = Path(__file__).parent / "results"
SIZES = (16, 20, 24, 32, 40, 48, 64, 96)
STRANGERS = 0.5  # of the other network
# Its five points, as shares of the crop's side (Open Model Zoo, face-reidentification-retail-0095).
POINTS = np.array(
    [
        (0.31556875, 0.46157406),
        (0.68262292, 0.45983),
        (0.5002625, 0.640505),
        (0.34947187, 0.82469),
        (0.6534364, 0.8232508),
    ]
)
Vectors = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="Parquet file of aligned faces")
    parser.add_argument("--others", type=Path, required=True, help="Parquet file with other photos of some of them")
    parser.add_argument("--source", default="", help="take of --faces only those whose column `source` has this in it")
    parser.add_argument("--network", type=Path, required=True, help="face-reidentification-retail-0095.onnx")
    parser.add_argument("--same", type=float, default=0.52, help="its cosine from which a pair is one person")
    parser.add_argument("--copy", type=float, default=0.95, help="its cosine from which a pair is one photo")
    parser.add_argument("--sheet", type=Path, help="PNG of the pairs")
    args = parser.parse_args()
    faces, others = read_faces(args.faces, args.source), read_faces(args.others)
    seen = [other_vectors(str(args.network), some) for some in (faces, others)]
    here, there = pairs_of_people(*seen, args.same, args.copy)
    if args.sheet:
        _sheet(
            [np.hstack([at_side(faces[a], 96), at_side(others[b], 96)]) for a, b in zip(here, there, strict=True)],
            args.sheet,
        )
    recogniser = DlibRecogniser()
    mine, theirs = (recogniser.embed(some).astype(np.float64) for some in (faces, others))
    strangers = seen[0] @ seen[1].T < STRANGERS
    among = (theirs @ theirs.T)[np.triu_indices(len(theirs), 1)]
    lines = [
        "| | pairs | mean | 1st | 5th | median | 95th | 99th percentile |",
        "|---|---|---|---|---|---|---|---|",
        _line("one person, two photos", (mine[here] * theirs[there]).sum(axis=1)),
        _line("strangers, between the sets", (mine @ theirs.T)[strangers]),
        _line("strangers, among the others", among),
        "",
        "| side of one face, px | one person, median | its own sharp photo, median | told from strangers at 1 % |",
        "|---|---|---|---|",
    ]
    for size in SIZES:
        small = recogniser.embed([at_side(at_side(faces[a], size), 256) for a in here]).astype(np.float64)
        same, own = (small * theirs[there]).sum(axis=1), (small * mine[here]).sum(axis=1)
        limit = np.quantile((small @ theirs.T)[strangers[here]], 0.99)
        lines.append(f"| {size} | {np.median(same):.3f} | {np.median(own):.3f} | {(same > limit).mean():.0%} |")
    text = header() + "\n".join([*lines, ""])
    (RESULTS / "identity_scale.md").write_text(text)
    print(text)


def read_faces(path: Path, source: str = "") -> list[Uint8Image]:
    """The images of a Parquet file, of the rows whose column `source` has that text in it."""
    rows = pq.read_table(path, columns=["image", "source"]).to_pylist()
    return [decode(row["image"]["bytes"]).pixels for row in rows if source in row["source"]]


def pairs_of_people(a: Vectors, b: Vectors, same: float, copy: float) -> tuple[list[int], list[int]]:
    """The places of the people that are in both sets."""
    cosines = a @ b.T
    best, back = cosines.argmax(axis=1), cosines.argmax(axis=0)
    found = [i for i, j in enumerate(best) if back[j] == i and same < cosines[i, j] < copy]
    return found, best[found].tolist()


def other_vectors(network: str, faces: Sequence[Uint8Image]) -> Vectors:
    """(n, 256) of length 1, of OpenVINO's network."""
    net, found = cv2.dnn.readNetFromONNX(network), []
    for face in faces:
        crop, _ = align(face, at_size(FFHQ_5, len(face)), POINTS * 512, 128)
        net.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(crop[..., ::-1]).astype(np.float32)))
        found.append(net.forward().ravel().astype(np.float64))
    vectors = np.stack(found)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def at_side(face: Uint8Image, side: int) -> Uint8Image:
    """The face `side` px wide and high."""
    way = cv2.INTER_AREA if side < len(face) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(face, (side, side), interpolation=way), np.uint8)


def _line(name: str, cosines: NDArray[np.float64]) -> str:
    numbers = (cosines.mean(), *np.quantile(cosines, [0.01, 0.05, 0.5, 0.95, 0.99]))
    return f"| {name} | {len(cosines)} | " + " | ".join(f"{number:.3f}" for number in numbers) + " |"


def _sheet(tiles: Sequence[Uint8Image], path: Path, columns: int = 8) -> None:
    missing = -len(tiles) % columns
    rows = [*tiles, *[np.zeros_like(tiles[0])] * missing]
    Image.fromarray(
        np.vstack([np.hstack(rows[start : start + columns]) for start in range(0, len(rows), columns)])
    ).save(path)


if __name__ == "__main__":
    main()
