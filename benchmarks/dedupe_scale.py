"""How alike two pictures are by each feature that near-duplicates are found by: copies, other photos, strangers.

    python benchmarks/dedupe_scale.py --faces A.parquet --others B.parquet --network FACE.onnx [--photos C.parquet]

Copies are made of --faces: encoded again, resized, framed a little differently, brighter. Who is in both sets of
aligned faces, and who is a stranger to whom, is decided by another network than those measured (identity_scale.py).
--photos are whole photos, which only the perceptual feature sees as they are. Writes results/dedupe_scale.md;
`tasks/curation/dedupe_scale.py` has the marks.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from header import header
from identity_scale import STRANGERS, Vectors, at_side, other_vectors, pairs_of_people, read_faces
from PIL import Image

from bfr_models.faces.dlib_models import DlibRecogniser
from bfr_models.pixels import Uint8Image
from tasks.curation.row_vectors import perceptual_vector

RESULTS = Path(__file__).parent / "results"
Look = Callable[[Sequence[Uint8Image]], Vectors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, help="Parquet file of aligned faces, one photo each")
    parser.add_argument("--others", type=Path, required=True, help="Parquet file with other photos of some of them")
    parser.add_argument("--network", type=Path, required=True, help="face-reidentification-retail-0095.onnx")
    parser.add_argument("--photos", type=Path, help="Parquet file of whole photos")
    parser.add_argument("--copies", type=int, default=200, help="of how many faces copies are made")
    parser.add_argument("--same", type=float, default=0.52, help="the network's cosine from which a pair is one person")
    parser.add_argument("--copy", type=float, default=0.95, help="its cosine from which a pair may be one photo")
    args = parser.parse_args()
    faces, others = read_faces(args.faces), read_faces(args.others)
    seen = [other_vectors(str(args.network), some) for some in (faces, others)]
    people = pairs_of_people(*seen, args.same, args.copy)
    strangers = seen[0] @ seen[1].T < STRANGERS, np.triu(seen[0] @ seen[0].T < STRANGERS, 1)
    chosen = np.random.default_rng(0).choice(len(faces), min(args.copies, len(faces)), replace=False)
    lines = []
    recogniser = DlibRecogniser()
    looks: dict[str, Look] = {
        "embedding (dlib), aligned faces": lambda some: recogniser.embed(some).astype(np.float64),
        "perceptual, aligned faces": perceptual,
    }
    for name, look in looks.items():
        mine, theirs = look(faces), look(others)
        rows = copies_of([faces[i] for i in chosen], mine[chosen], look)
        rows |= {
            "one person, another photo": (mine[people[0]] * theirs[people[1]]).sum(axis=1),
            "strangers": np.concatenate([(mine @ theirs.T)[strangers[0]], (mine @ mine.T)[strangers[1]]]),
        }
        lines += table(name, rows)
    if args.photos:
        photos = read_faces(args.photos)
        mine = perceptual(photos)
        some = np.random.default_rng(0).choice(len(photos), min(args.copies, len(photos)), replace=False)
        rows = copies_of([photos[i] for i in some], mine[some], perceptual)
        rows["all pairs of photos"] = (mine @ mine.T)[np.triu_indices(len(mine), 1)]
        lines += table("perceptual, whole photos", rows)
    text = header() + "\n".join(lines)
    (RESULTS / "dedupe_scale.md").write_text(text)
    print(text)


def perceptual(images: Sequence[Uint8Image]) -> Vectors:
    """(n, 63) of length 1."""
    return np.stack([perceptual_vector(image) for image in images]).astype(np.float64)


def copies_of(images: Sequence[Uint8Image], vectors: Vectors, look: Look) -> dict[str, Vectors]:
    """For each kind of copy the cosine of each image to its copy."""
    kinds: dict[str, Callable[[Uint8Image], Uint8Image]] = {
        "JPEG again, quality 90": lambda image: _encoded(image, "JPEG", 90),
        "JPEG again, quality 40": lambda image: _encoded(image, "JPEG", 40),
        "WebP, quality 75": lambda image: _encoded(image, "WEBP", 75),
        "half as large": lambda image: _scaled(image, 0.5),
        "twice as large": lambda image: _scaled(image, 2),
        "half as large, JPEG 40": lambda image: _encoded(_scaled(image, 0.5), "JPEG", 40),
        "grey": lambda image: np.asarray(Image.fromarray(image).convert("L").convert("RGB")),
        "a tenth brighter": lambda image: np.clip(image * 1.1, 0, 255).astype(np.uint8),
        "framed 2 % narrower": lambda image: _cropped(image, 0.02),
    }
    return {name: (vectors * look([copy(image) for image in images])).sum(axis=1) for name, copy in kinds.items()}


def _encoded(image: Uint8Image, form: str, quality: int) -> Uint8Image:
    data = io.BytesIO()
    Image.fromarray(image).save(data, form, quality=quality)
    return np.asarray(Image.open(data).convert("RGB"))


def _scaled(image: Uint8Image, factor: float) -> Uint8Image:
    if image.shape[0] == image.shape[1]:
        return at_side(image, round(len(image) * factor))
    height, width = image.shape[:2]
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _cropped(image: Uint8Image, share: float) -> Uint8Image:
    height, width = (round(side * share) for side in image.shape[:2])
    return np.ascontiguousarray(image[height:-height, width:-width])


def table(name: str, rows: dict[str, Vectors]) -> list[str]:
    """A section of the result: quantiles of the cosines of each kind of pair."""
    lines = [f"## {name}", "", "| | pairs | lowest | 1st | 5th | median | 99th | 99.99th percentile | highest |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for kind, found in rows.items():
        numbers = np.quantile(found, [0, 0.01, 0.05, 0.5, 0.99, 0.9999, 1])
        lines.append(f"| {kind} | {len(found):,} | " + " | ".join(f"{number:.4f}" for number in numbers) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
