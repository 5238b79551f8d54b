"""Draws docs/before-after.jpg, the picture at the top of README: `python scripts/readme_picture.py`.

Two public-domain portraits that installed packages ship (`tasks/make_demo_faces.py`), made small and aged as `bfr demo`
does it with one of them, restored by `bfr restore` with its defaults. For each: the scan, the result, the photograph of
before. A face that the judge keeps would be no picture: that is an error.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from bfr_models.pixels import Uint8Image
from flows.restore_dataset import restore_without_prefect
from tasks.config.restore import RestoreRun
from tasks.make_demo_faces import PORTRAITS, aged_portrait
from tasks.pack_pictures import files_of_run

PICTURE = Path(__file__).parent.parent / "docs" / "before-after.jpg"
SEEDS = (5, 7)  # of each portrait's damage: halftone; blur and grain
SIDE, AROUND, GAP, QUALITY = 230, 1.7, 8, 88  # px; the square around a face, in sides of its box


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scans, restored = Path(folder, "scans"), Path(folder, "restored")
        scans.mkdir()
        photos = {}
        for (name, package, file), seed in zip(PORTRAITS, SEEDS, strict=True):
            photos[f"{name}.jpg"], aged = aged_portrait(package, file, seed)
            Image.fromarray(aged).save(scans / f"{name}.jpg", quality=90)
        rows = _restore(scans, restored)
        tiles = [list(_tiles(Image.open(scans / name), rows[name], photo)) for name, photo in photos.items()]
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    Image.fromarray(np.hstack([*tiles[0], gap, *tiles[1]])).save(PICTURE, quality=QUALITY)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1024} KiB")


def _restore(scans: Path, destination: Path) -> dict[str, Any]:
    run = RestoreRun(source=str(scans), destination=str(destination), method="difface", input="photos", engine="local")
    files = files_of_run(run.source, run.destination)
    assert files is not None, "a folder of files"
    files.pack()
    restore_without_prefect(run.model_copy(update={"source": files.url}))
    return {row["id"]: row for row in pq.read_table(destination / "data").to_pylist()}


def _tiles(scan: Image.Image, row: dict[str, Any], photo: Uint8Image) -> Iterator[Uint8Image]:
    """The face in the scan, as it was restored, and in the photograph."""
    face = row["faces"][0]
    assert face["outcome"].startswith(("restored", "corrected")), f"{row['id']}: {face['outcome']}"
    left, top, right, bottom = face["box"]
    half, x, y = AROUND * max(right - left, bottom - top) / 2, (left + right) / 2, (top + bottom) / 2
    for image in (scan, Image.open(io.BytesIO(row["restored"]["bytes"])), Image.fromarray(photo)):
        tile = image.convert("RGB").resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC, (x - half, y - half, x + half, y + half)
        )
        yield np.asarray(tile)


if __name__ == "__main__":
    main()
