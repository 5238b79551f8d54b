"""Training faces: decoded once, augmented and degraded on the fly, every item from its own seed.

Item i of a stream depends on (seed, i) alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from bfr_models.degradation.degrade import degrade
from bfr_models.degradation.presets import get_preset
from bfr_models.errors import UsageError
from bfr_models.pixels import BLUE, GREEN, RED, Uint8Image, resize, to_tensor, to_uint8

HELD_OUT_FRACTION = 0.04
OVERSAMPLING = 2  # faces are kept larger than needed, so that a warp loses no sharpness


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random view of a face; one draw per item."""

    flip: float = 0.5  # probability
    rotation: float = 4.0  # degrees, either way
    scale: float = 0.06  # relative, either way
    shift: float = 0.03  # of the side, either way
    colour: float = 0.5  # probability of a new brightness, contrast and gamma
    grey: float = 0.1  # probability of a black-and-white face
    toned: float = 0.0  # probability of one in the tones of an old print
    cast: float = 0.0  # probability of a colour cast


@dataclass(frozen=True)
class Faces:
    """Aligned faces for one training: `train` and `held_out` are (n, S, S, 3) uint8."""

    train: Uint8Image
    held_out: Uint8Image
    source: str
    people_held_out: tuple[str, ...] = ()  # where the data names them

    @property
    def description(self) -> dict[str, object]:
        people = {"people_held_out": list(self.people_held_out)} if self.people_held_out else {}
        return {"dataset": self.source, "train": len(self.train), "held_out": len(self.held_out), **people}


def read_faces(path: Path, size: int, column: str = "image") -> Faces:
    """Reads a Parquet file, or a folder of them, of aligned faces; every ~25th person is held out, by name where
    there is a column `person`, else by the picture's content."""
    files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UsageError(f"expected a Parquet file or a folder of them, found none at {path}")
    train: list[Uint8Image] = []
    held_out: list[Uint8Image] = []
    people: set[str] = set()
    for file in files:
        for data, person in encoded_images(file, column):
            face = decode_face(data, size * OVERSAMPLING, file)
            first = hashlib.sha256(person.encode() if person else data).digest()[0] / 256
            is_held_out = first < HELD_OUT_FRACTION
            (held_out if is_held_out else train).append(face)
            if is_held_out and person:
                people.add(person)
    if len(train) < 2 or not held_out:
        raise UsageError(f"expected at least some 50 faces to train on, found {len(train) + len(held_out)} in {path}")
    return Faces(np.stack(train), np.stack(held_out), path.name, tuple(sorted(people)))


class FaceStream(Dataset[tuple[Tensor, Tensor]]):
    """Item i: (gt, lq), both (3, size, size) in [-1, 1]; lq is gt itself where `presets` is empty."""

    def __init__(
        self, faces: Uint8Image, size: int, presets: Sequence[str], augmentation: Augmentation, seed: int, length: int
    ) -> None:
        self.faces, self.size, self.seed, self.length = faces, size, seed, length
        self.presets = [get_preset(name) for name in presets]
        self.augmentation = augmentation

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        face = to_tensor(self.faces[rng.integers(len(self.faces))])
        gt = to_uint8(augment(face, self.size, self.augmentation, rng))
        lq = gt
        if self.presets:
            lq = degrade(gt, self.presets[rng.integers(len(self.presets))], int(rng.integers(2**62)))
        return to_tensor(gt), to_tensor(lq)


def fixed_pairs(faces: Uint8Image, size: int, presets: Sequence[str]) -> tuple[Tensor, Tensor]:
    """(gt, lq) of every face, unaugmented, with the same degradations each time."""
    gt = to_uint8(resize(torch.stack([to_tensor(face) for face in faces]), size).clamp(-1, 1))
    lq = [degrade(g, get_preset(presets[i % len(presets)]), i) for i, g in enumerate(gt)] if presets else gt
    return torch.stack([to_tensor(g) for g in gt]), torch.stack([to_tensor(y) for y in lq])


def augment(face: Tensor, size: int, a: Augmentation, rng: np.random.Generator) -> Tensor:
    """A random view of (3, S, S) in [-1, 1] as (3, size, size) in [-1, 1]."""
    if rng.random() < a.flip:
        face = face.flip(-1)
    angle = np.deg2rad(rng.uniform(-a.rotation, a.rotation))
    zoom = 1 + rng.uniform(-a.scale, a.scale)
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    shift_x, shift_y = rng.uniform(-2 * a.shift, 2 * a.shift, size=2)
    matrix = torch.tensor([[cos, -sin, shift_x], [sin, cos, shift_y]], dtype=torch.float32)
    grid = F.affine_grid(matrix[None], [1, *face.shape], align_corners=False)
    view = F.grid_sample(face[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    view = resize(view, size)[0]
    if rng.random() < a.colour:
        gamma, contrast, brightness = np.exp(rng.uniform(-0.2, 0.2, size=3) * (1, 0.75, 0.5))
        view = (view.add(1).div(2).clamp(0, 1) ** gamma * brightness - 0.5) * contrast * 2
    if rng.random() < a.grey:
        view = view.mul(torch.tensor([RED, GREEN, BLUE]).view(3, 1, 1)).sum(0, keepdim=True).expand(3, -1, -1)
    if a.toned and rng.random() < a.toned:
        view = _toned(view, rng)
    if a.cast and rng.random() < a.cast:
        gain, offset = rng.uniform(0.85, 1.15, (3, 1, 1)), rng.uniform(-0.1, 0.1, (3, 1, 1))
        view = view * torch.from_numpy(gain).float() + torch.from_numpy(offset).float()
    return view.clamp(-1, 1)


def _toned(view: Tensor, rng: np.random.Generator) -> Tensor:
    """Black and white of a print between neutral and brown; the middle tones take the colour, white less."""
    light = view.mean(0, keepdim=True).add(1).div(2).clamp(0, 1)
    warmth = rng.uniform(0.05, 0.35)
    gamma = torch.tensor([1 - warmth, 1 - warmth * rng.uniform(0, 0.5), 1 + warmth], dtype=torch.float32).view(3, 1, 1)
    paper = torch.tensor([1.0, 1 - 0.1 * warmth, 1 - rng.uniform(0, 0.6) * warmth], dtype=torch.float32).view(3, 1, 1)
    return light**gamma * paper * 2 - 1


def encoded_images(file: Path, column: str) -> Iterator[tuple[bytes, str | None]]:
    """The encoded images of one file and who is on them: binary cells, or Hugging Face's {bytes, path}."""
    try:
        parquet = pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise UsageError(f"expected a Parquet file, found something else: {file} ({error})") from None
    with parquet:
        if column not in parquet.schema_arrow.names:
            known = ", ".join(parquet.schema_arrow.names)
            raise UsageError(f"expected a column {column!r} of images in {file}, found {known}")
        columns = [column, *({"person"} & set(parquet.schema_arrow.names))]
        for batch in parquet.iter_batches(64, columns=columns):
            for row in batch.to_pylist():
                cell = row[column]
                yield cell["bytes"] if isinstance(cell, dict) else cell, row.get("person")


def decode_face(data: bytes, size: int, file: Path) -> Uint8Image:
    try:
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, TypeError) as error:  # TypeError: the cell is null or no bytes
        raise UsageError(f"expected images that decode, found one in {file} that does not: {error}") from None
    return to_uint8(resize(to_tensor(image)[None], size)[0].clamp(-1, 1))
