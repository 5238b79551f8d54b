"""Whether a method returns faces from its training set instead of the one it was given.

    python benchmarks/memorisation.py --train train.parquet --data faces.parquet [--grid nearest.png]

Degrades held-out faces severely (`difface`, as `bfr degrade --size 128 --seed 0` does), restores them, and finds the
nearest training face, by dlib's recogniser and by pixels. The bar is what the true faces score: no training face
shows the same person. Writes results/memorisation.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from diffbfr_ablation import Pictures, degraded, read_faces, restore
from header import header
from numpy.typing import NDArray
from PIL import Image

from bfr_models.faces.dlib_models import DlibRecogniser

RESULTS = Path(__file__).parent / "results"
METHODS = ("estimator", "difface", "diffbfr", "clr_face")
HEADER = (
    "| faces | identity to the nearest training face: mean | 95th percentile | highest | nearer to it than to gt | "
    "PSNR to the nearest training face: mean | highest |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, action="append", help="Parquet that was trained on")
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of other people's aligned faces")
    parser.add_argument("--faces", type=int, help="how many; all by default")
    parser.add_argument("--grid", type=Path, help="PNG: lq, restored, nearest training face, gt of the most suspicious")
    args = parser.parse_args()
    recogniser = DlibRecogniser()
    ids, gt = read_faces(args.data, args.faces)
    train = np.concatenate([read_faces(path, None)[1] for path in args.train])
    known, true = recogniser.embed(list(train)), recogniser.embed(list(gt))
    lq = degraded(ids, gt, "difface_extreme")
    shown = {"gt": gt, "lq": lq} | {method: restore(method, ids, lq, {}, "cpu")[0] for method in METHODS}
    lines, grid = [], []
    for name, faces in shown.items():
        vectors = recogniser.embed(list(faces))
        similar = vectors @ known.T
        nearest, own = similar.max(1), (vectors * true).sum(1)
        pixels = nearest_psnr(faces, train)
        lines.append(
            f"| {name} | {nearest.mean():.3f} | {np.quantile(nearest, 0.95):.3f} | {nearest.max():.3f} | "
            f"{(nearest > own).mean():.0%} | {pixels.mean():.1f} | {pixels.max():.1f} |"
        )
        print(lines[-1], flush=True)
        if name in METHODS:
            worst = np.argsort(own - nearest)[:3]
            grid += [np.concatenate([lq[i], faces[i], train[similar[i].argmax()], gt[i]], axis=1) for i in worst]
    text = (
        f"{header()}{len(ids)} held-out faces, severely degraded and restored, against {len(train)} training faces at "
        "128 px. Identity is dlib's cosine.\n\n" + "\n".join([HEADER, "|---" * 7 + "|", *lines]) + "\n"
    )
    (RESULTS / "memorisation.md").write_text(text)
    if args.grid:
        Image.fromarray(np.concatenate(grid)).save(args.grid)


def nearest_psnr(faces: Pictures, train: Pictures) -> NDArray[np.float64]:
    """(n,) PSNR of each face to the training face for which it is highest."""
    flat = train.reshape(len(train), -1).astype(np.float32)
    errors = [np.square(flat - face.reshape(-1).astype(np.float32)).mean(1).min() for face in faces]
    return 10 * np.log10(255**2 / np.maximum(np.array(errors, np.float64), 1e-9))


if __name__ == "__main__":
    main()
