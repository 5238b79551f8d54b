"""Training faces that lie on the device as uint8, and are augmented there in batches.

`pack` makes the file that they travel in: the people to train on and nobody held out (`bfr_models.training.data`), each
face once more encoded, at the side that is asked for.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bfr_models.errors import UsageError
from bfr_models.pixels import BLUE, GREEN, RED, resize, to_tensor, to_uint8
from bfr_models.training.data import Augmentation, decode_face, encoded_images, local_files, read_faces

_FACTS = b"bfr:faces"  # key of the file's metadata
QUALITY = 92  # of the JPEGs, which have all of their colours


def pack(data: Path, file: Path, size: int, side: int) -> int:
    """Writes the faces to train on for networks of `size` px, at `side` px, and returns the bytes that they take."""
    faces = read_faces(data, size)
    cells = []
    for face in faces.train:
        buffer = io.BytesIO()
        smaller = to_uint8(resize(to_tensor(face)[None], side)[0].clamp(-1, 1))
        Image.fromarray(smaller).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        cells.append(buffer.getvalue())
    table = pa.table({"image": pa.array(cells, pa.binary())})
    pq.write_table(table.replace_schema_metadata({_FACTS: json.dumps(faces.description)}), file, compression="none")
    return file.stat().st_size


def facts_of(file: Path) -> dict[str, Any]:
    """What `pack` says of its faces. UsageError for a file that is missing, or that it has not made."""
    if not file.is_file():
        raise UsageError(f"expected faces that were packed, found no file at {file}; pack them first: --pack FACES")
    try:
        metadata = pq.read_schema(file).metadata or {}
    except pa.ArrowInvalid:  # not Parquet
        metadata = {}
    if _FACTS not in metadata:
        raise UsageError(f"expected faces that were packed, found others at {file}; pack them first: --pack FACES")
    facts: dict[str, Any] = json.loads(metadata[_FACTS])
    return facts


class DeviceFaces:
    """All faces of a packed file, (n, 3, S, S) uint8 on the device, and random views of them."""

    def __init__(self, file: Path, size: int, augmentation: Augmentation, device: torch.device | str) -> None:
        self.description = facts_of(file)
        (packed,) = local_files(file)
        cells = [cell for cell, _ in encoded_images(packed, "image")]
        side = Image.open(io.BytesIO(cells[0])).width
        faces = np.stack([decode_face(cell, side, packed.name) for cell in cells])
        self.faces = torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous().to(device)
        self.size, self._augmentation, self._device = size, augmentation, torch.device(device)

    def __len__(self) -> int:
        return len(self.faces)

    def views(self, count: int, rng: np.random.Generator) -> Tensor:
        """(count, 3, size, size) in [-1, 1], at the levels of 8-bit images: as `bfr_models.training.data.augment` draws
        them, but for its draws."""
        chosen = self._moved(rng.integers(len(self.faces), size=count))
        view = self._augmented(self.faces[chosen].float().div(127.5).sub(1), rng)
        return view.add(1).mul(127.5).round().div(127.5).sub(1)

    def _augmented(self, faces: Tensor, rng: np.random.Generator) -> Tensor:
        a, count = self._augmentation, len(faces)

        def happens(probability: float) -> Tensor:
            return self._moved(rng.random(count) < probability)[:, None, None, None]

        def drawn(low: float, high: float, channels: int = 1) -> Tensor:
            return self._moved(rng.uniform(low, high, (count, channels)))[:, :, None, None]

        view = resize(F.grid_sample(faces, self._grid(faces, rng), "bilinear", "reflection", False), self.size)
        gamma, contrast, brightness = drawn(-0.2, 0.2, 3).unsqueeze(2).unbind(1)
        light = view.add(1).div(2).clamp(0, 1)
        lit = (light ** gamma.exp() * (0.5 * brightness).exp() - 0.5) * (0.75 * contrast).exp() * 2
        view = torch.where(happens(a.colour), lit, view)
        luma = torch.tensor([RED, GREEN, BLUE], device=view.device).view(3, 1, 1)
        view = torch.where(happens(a.grey), (view * luma).sum(1, keepdim=True), view)
        view = torch.where(happens(a.toned), _toned(view, drawn(0.05, 0.35), drawn(0, 0.5), drawn(0, 0.6)), view)
        view = torch.where(happens(a.cast), view * drawn(0.85, 1.15, 3) + drawn(-0.1, 0.1, 3), view)
        return view.clamp(-1, 1)

    def _grid(self, faces: Tensor, rng: np.random.Generator) -> Tensor:
        """Where each pixel of a view is in its face: turned, scaled, shifted, and perhaps mirrored."""
        a, count = self._augmentation, len(faces)
        mirror = np.where(rng.random(count) < a.flip, -1.0, 1.0)
        angle = np.deg2rad(rng.uniform(-a.rotation, a.rotation, count))
        zoom = 1 + rng.uniform(-a.scale, a.scale, count)
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        right, down = rng.uniform(-2 * a.shift, 2 * a.shift, (2, count))
        rows = [[mirror * cos, -mirror * sin, mirror * right], [sin, cos, down]]
        return F.affine_grid(self._moved(np.array(rows).transpose(2, 0, 1)), list(faces.shape), align_corners=False)

    def _moved(self, values: NDArray[np.generic]) -> Tensor:
        there = torch.from_numpy(np.ascontiguousarray(values))
        there = there.float() if there.is_floating_point() else there
        return there.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else there


def _toned(view: Tensor, warmth: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """Prints between neutral and brown (`bfr_models.training.data`), each of its own warmth."""
    light = view.mean(1, keepdim=True).add(1).div(2).clamp(0, 1)
    gamma = torch.cat([1 - warmth, 1 - warmth * green, 1 + warmth], 1)
    paper = torch.cat([torch.ones_like(warmth), 1 - 0.1 * warmth, 1 - blue * warmth], 1)
    return light**gamma * paper * 2 - 1
