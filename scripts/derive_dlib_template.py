"""Where dlib's five landmarks lie in an FFHQ-aligned face: the numbers of `bfr_models.faces.template.DLIB_5`.

    python scripts/derive_dlib_template.py FACES.parquet

FACES.parquet holds aligned faces of any size as `image: struct<bytes, path>`. Each is shown to dlib's
detector and landmark predictor; the landmarks are brought to 512 px, and each point's mean is taken over
the faces within three robust standard deviations of its median (the others are false detections and
profiles).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from bfr_models.faces.dlib_models import DlibDetector
from bfr_models.faces.template import TEMPLATE_SIDE
from bfr_models.faces.types import Points
from bfr_models.pixels import Uint8Image

NAMES = ("right eye, outer", "right eye, inner", "left eye, outer", "left eye, inner", "nose base")


def main() -> None:
    parser = argparse.ArgumentParser(description="Where dlib's landmarks lie in an FFHQ-aligned face.")
    parser.add_argument("faces", metavar="FACES.parquet")
    path = parser.parse_args().faces
    detector = DlibDetector()
    found = [landmarks_at_512(detector, image) for image in read_faces(path)]
    points = np.stack([landmarks for landmarks in found if landmarks is not None])
    print(f"{len(found)} faces, {len(points)} detected; px at 512")
    mean, spread, kept = robust_mean(points)
    for name, (x, y), (dx, dy), share in zip(NAMES, mean, spread, kept, strict=True):
        print(f"{name:17} ({x:.2f}, {y:.2f})  spread {dx:.1f} x {dy:.1f}  from {share:.1%} of the faces")


def read_faces(path: str) -> Iterator[Uint8Image]:
    """Every face of the file, decoded one at a time."""
    for batch in pq.ParquetFile(path).iter_batches(64, columns=["image"]):
        for image in batch.column("image").to_pylist():
            yield np.array(Image.open(io.BytesIO(image["bytes"])).convert("RGB"))


def landmarks_at_512(detector: DlibDetector, image: Uint8Image) -> Points | None:
    """The most prominent face's landmarks; None when no face is found."""
    faces = detector.detect(image)
    if not faces:
        return None
    landmarks: Points = (faces[0].landmarks + 0.5) * (TEMPLATE_SIDE / image.shape[0]) - 0.5
    return landmarks


def robust_mean(points: NDArray[np.float64]) -> tuple[Points, Points, NDArray[np.float64]]:
    """(faces, n, 2) -> mean (n, 2) and standard deviation (n, 2) of the inliers, and their share (n,)."""
    distance: NDArray[np.float64] = np.abs(points - np.median(points, axis=0))
    inlier = np.asarray((distance < 3 * 1.4826 * np.median(distance, axis=0)).all(axis=2))
    per_point = [points[inlier[:, index], index] for index in range(points.shape[1])]
    mean, spread = (np.stack([f(p, axis=0) for p in per_point]) for f in (np.mean, np.std))
    return mean, spread, inlier.mean(axis=0)


if __name__ == "__main__":
    main()
