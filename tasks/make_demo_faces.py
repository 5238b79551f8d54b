"""Makes the demo's inputs from two public-domain portraits that installed packages ship: their faces, aligned and
degraded, and one of them as a whole photograph, aged as prints in an archive are."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from math import hypot
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from bfr_models.degradation.ageing import age
from bfr_models.degradation.degrade import apply, degrade, draw
from bfr_models.degradation.presets import get_preset
from bfr_models.errors import UsageError
from bfr_models.faces.align import align, similarity
from bfr_models.faces.dlib_models import DlibDetector
from bfr_models.faces.template import at_size
from bfr_models.faces.types import DetectedFace
from bfr_models.pixels import Uint8Image, face_tensor, resize, to_tensor, to_uint8
from bfr_models.rng import derive_seed
from tasks.datasets.image_column import IMAGE, with_image_features
from tasks.datasets.writer import encode_table
from tasks.images.codec import decode, encode
from tasks.storage.store import Store

PORTRAITS = (
    # name           package       file in it                                   credit, both public domain
    ("grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),  # US Navy, 1984
    ("eileen_collins", "skimage", "data/astronaut.png"),  # NASA, 1999
)
SEEDS = 6  # degraded versions of each portrait
DEGRADATION = "gfpgan"
AGED = 7  # seed of the photograph's damage: out of focus, and grainy
SIZE = 128
FILE = "part-00000.parquet"
SCHEMA = with_image_features(
    pa.schema([("id", pa.string()), ("image", IMAGE), ("gt", IMAGE), ("portrait", pa.string())]),
    ["image", "gt"],
)


def make_demo_faces(destination: str) -> None:
    """Writes the dataset (`id`, `image`, `gt`, `portrait`) unless it is there: a second demo then has nothing to do."""
    store = Store(destination)
    data = encode_table(pa.Table.from_pylist(list(_rows()), schema=SCHEMA), row_group_rows=4)
    if not (store.exists(FILE) and store.read(FILE) == data):
        store.write(FILE, data)


def make_demo_photo(folder: str) -> None:
    """Writes the second portrait, aged, as a JPEG file, unless it is there."""
    name, package, file = PORTRAITS[1]
    store, path = Store(folder), f"{name}.jpg"
    if store.exists(path):
        return
    _, aged = aged_portrait(package, file, AGED)
    Image.fromarray(aged).save(data := io.BytesIO(), "JPEG", quality=90, dpi=(150, 150))
    store.write(path, data.getvalue())


def aged_portrait(package: str, file: str, seed: int) -> tuple[Uint8Image, Uint8Image]:
    """A portrait with its face as large as the networks draw one, and the same, aged as prints in an archive are."""
    photo, face, detector = _portrait(package, file)
    matrix = similarity(face.landmarks, at_size(detector.template, SIZE))
    height, width = (round(side * hypot(matrix[0, 0], matrix[1, 0])) for side in photo.shape[:2])
    small = to_uint8(resize(to_tensor(photo)[None], (height, width))[0])
    rng = np.random.default_rng(seed)
    drawn = draw(get_preset("archive"), SIZE, rng)
    return small, apply(age(small, rng), drawn, rng)


def _rows() -> Iterator[dict[str, object]]:
    for name, package, file in PORTRAITS:
        gt = _aligned_portrait(package, file)
        for seed in range(SEEDS):
            row_id = f"{name}-{seed}"
            lq = degrade(gt, get_preset(DEGRADATION), derive_seed(seed, row_id))
            yield {
                "id": row_id,
                "image": {"bytes": encode(lq), "path": None},
                "gt": {"bytes": encode(gt), "path": None},
                "portrait": name,
            }


def _aligned_portrait(package: str, file: str) -> Uint8Image:
    """The face of a portrait, (SIZE, SIZE, 3), aligned to the FFHQ template."""
    photo, face, detector = _portrait(package, file)
    crop, _ = align(photo, face.landmarks, detector.template, 2 * SIZE)
    return to_uint8(face_tensor(crop, SIZE))


@cache
def _portrait(package: str, file: str) -> tuple[Uint8Image, DetectedFace, DlibDetector]:
    """A portrait, its face, and what found it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"expected the package {package}, found none; install the extra: 'bfr-pipeline[offline]'")
    photo = decode((Path(spec.submodule_search_locations[0]) / file).read_bytes()).pixels
    detector = DlibDetector()
    faces = detector.detect(photo)
    if not faces:
        raise UsageError(f"expected a face in {file} of {package}, found none; install the locked versions")
    return photo, faces[0], detector
