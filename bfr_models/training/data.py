"""Training faces: decoded once, augmented and degraded on the fly, every item from its own seed.

Item i of a stream depends on (seed, i) alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, NamedTuple

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
from bfr_models.training import ranks

HELD_OUT_FRACTION = 0.04
OVERSAMPLING = 2  # faces are kept larger than needed, so that a warp loses no sharpness
HELD_OUT_PIXELS = 2**23  # of the faces that a run is measured on: 512 at 128 px, 32 at 512 px
LANE_ROWS = 4096  # at least; see `read_faces`


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


@dataclass(frozen=True, eq=False)
class Faces:
    """Aligned faces for one training, (n, S, S, 3) uint8: to train on this rank's, held out the same on all."""

    train: Uint8Image
    held_out: Uint8Image
    source: str
    people_held_out: tuple[str, ...] = ()  # where the data names them
    counts: tuple[int, int] | None = None  # of all ranks, to train on and held out, where these are not all
    lanes: tuple[
        tuple[int, int], ...
    ] = ()  # of each face of a batch, the first and last + 1 of those it is chosen from

    @property
    def first_lane(self) -> Uint8Image:
        """This rank's first faces; on the first rank the same ones, however many ranks there are."""
        return self.train[: next((end for first, end in self.lanes if first == 0), None)]

    @property
    def description(self) -> dict[str, object]:
        people = {"people_held_out": list(self.people_held_out)} if self.people_held_out else {}
        train, held_out = self.counts or (len(self.train), len(self.held_out))
        return {"dataset": self.source, "train": train, "held_out": held_out, **people}


class FaceFile(NamedTuple):
    """A Parquet file of faces, wherever it is."""

    name: str  # for messages
    open: Callable[[], BinaryIO]


def local_files(path: Path) -> list[FaceFile]:
    """A Parquet file, or those in a folder and below."""
    files = sorted(path.glob("**/*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UsageError(f"expected a Parquet file or a folder of them, found none at {path}")
    return [FaceFile(str(file), partial(_open, file)) for file in files]


def _open(file: Path) -> BinaryIO:
    return file.open("rb")


@dataclass
class _Lane:
    """What one lane's rows hold."""

    train: int = 0
    held_out: int = 0
    shown: list[Uint8Image] = field(default_factory=list)  # of those held out
    people: set[str] = field(default_factory=set)


def is_held_out(person: str | None, encoded: bytes, share: float = HELD_OUT_FRACTION) -> bool:
    """Whether a face is kept from training: by the name of its person, or else by its encoded picture."""
    return hashlib.sha256(person.encode() if person else encoded).digest()[0] / 256 < share


def read_faces(
    data: Path | Sequence[FaceFile], size: int, column: str = "image", *, source: str = "", batch_size: int = 1
) -> Faces:
    """Reads this rank's faces; every ~25th person is held out, by name where there is a column `person`, else by the
    picture's content.

    The rows, in the order of the files, are cut into lanes of at least `LANE_ROWS`, and the batch likewise: a face of a
    batch is chosen from the lane at its place. So a rank reads only the row groups in which its lanes have rows, and
    what a batch holds does not depend on the number of ranks.
    """
    files, source = (local_files(data), str(data)) if isinstance(data, Path) else (data, source)
    rows = [_row_groups(file, column) for file in files]
    total = sum(map(sum, rows))
    count = max((n for n in range(1, batch_size + 1) if batch_size % n == 0 and total // n >= LANE_ROWS), default=1)
    share = batch_size // ranks.count()
    of_batch = [face * count // batch_size for face in range(batch_size)]  # the lane of each face
    mine = of_batch[ranks.rank() * share : (ranks.rank() + 1) * share]
    lanes = {lane: _Lane() for lane in sorted(set(mine))}
    bounds = [lane * total // count for lane in range(count + 1)]
    kept = _Kept(size * OVERSAMPLING)
    shown = max(1, HELD_OUT_PIXELS // size**2 // count)
    for row, cell, person, file in _rows(files, rows, column, bounds[mine[0]], bounds[mine[-1] + 1]):
        lane = lanes[bisect(bounds, row) - 1]
        face = decode_face(cell, size * OVERSAMPLING, file.name)
        if not is_held_out(person, cell):
            kept.add(face)
            lane.train += 1
            continue
        lane.held_out += 1
        lane.people |= {person} if person else set()
        if len(lane.shown) < shown:
            lane.shown.append(face)
    everywhere: dict[int, _Lane] = {}
    for found in ranks.everyones(lanes):
        everywhere |= found
    return _faces(kept, [everywhere[lane] for lane in range(count)], mine[0], of_batch, source)


def _faces(kept: _Kept, lanes: list[_Lane], first: int, of_batch: list[int], source: str) -> Faces:
    """`kept` begins with the lane `first`."""
    counts = sum(lane.train for lane in lanes), sum(lane.held_out for lane in lanes)
    if min(lane.train for lane in lanes) < 2 or not counts[1]:
        raise UsageError(f"expected at least some 50 faces to train on, found {sum(counts)} in {source}")
    starts = [0, *accumulate(lane.train for lane in lanes)]
    bounds = [(starts[lane] - starts[first], starts[lane + 1] - starts[first]) for lane in of_batch]
    held_out = np.stack([face for lane in lanes for face in lane.shown])
    people = sorted(set().union(*(lane.people for lane in lanes)))
    return Faces(kept.faces(), held_out, Path(source).name, tuple(people), counts, tuple(bounds))


class _Kept:
    """Faces in a file without a name, so that memory need not hold them; it is gone with the last look at them."""

    def __init__(self, side: int) -> None:
        self._shape, self._count = (side, side, 3), 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def add(self, face: Uint8Image) -> None:
        self._file.write(face.tobytes())
        self._count += 1

    def faces(self) -> Uint8Image:
        self._file.flush()
        return np.memmap(self._file, np.uint8, "c", shape=(self._count, *self._shape))


class FaceStream(Dataset[tuple[Tensor, Tensor]]):
    """Item i: (gt, lq), both (3, size, size) in [-1, 1]; lq is gt itself where `presets` is empty."""

    def __init__(
        self,
        faces: Uint8Image,
        size: int,
        presets: Sequence[str],
        augmentation: Augmentation,
        seed: int,
        length: int,
        lanes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.faces, self.size, self.seed, self.length = faces, size, seed, length
        self.lanes = lanes or ((0, len(faces)),)
        self.presets = [get_preset(name) for name in presets]
        self.augmentation = augmentation

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        face = to_tensor(self.faces[rng.integers(*self.lanes[index % len(self.lanes)])])
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


def encoded_images(file: FaceFile, column: str) -> Iterator[tuple[bytes, str | None]]:
    """The encoded images of one file and who is on them: binary cells, or Hugging Face's {bytes, path}."""
    with _opened(file, column) as parquet:
        for group in range(parquet.num_row_groups):
            yield from _images(parquet, group, column)


def _row_groups(file: FaceFile, column: str) -> list[int]:
    """Rows of each."""
    with _opened(file, column) as parquet:
        return [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]


def _rows(
    files: Sequence[FaceFile], rows: list[list[int]], column: str, first: int, end: int
) -> Iterator[tuple[int, bytes, str | None, FaceFile]]:
    """The number, the image, the person and the file of each row from `first` to before `end`; row groups with none of
    these are not read."""
    at = 0
    for file, groups in zip(files, rows, strict=True):
        if at + sum(groups) <= first or at >= end:
            at += sum(groups)
            continue
        with _opened(file, column) as parquet:
            for group, count in enumerate(groups):
                if at < end and at + count > first:
                    for row, (data, person) in enumerate(_images(parquet, group, column), start=at):
                        if first <= row < end:
                            yield row, data, person, file
                at += count


@contextmanager
def _opened(file: FaceFile, column: str) -> Iterator[pq.ParquetFile]:
    with file.open() as stream:
        try:
            parquet = pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise UsageError(f"expected a Parquet file, found something else: {file.name} ({error})") from None
        if column not in parquet.schema_arrow.names:
            known = ", ".join(parquet.schema_arrow.names)
            raise UsageError(f"expected a column {column!r} of images in {file.name}, found {known}")
        yield parquet


def _images(parquet: pq.ParquetFile, group: int, column: str) -> Iterator[tuple[bytes, str | None]]:
    columns = [column, *({"person"} & set(parquet.schema_arrow.names))]
    for batch in parquet.iter_batches(64, row_groups=[group], columns=columns):
        for row in batch.to_pylist():
            cell = row[column]
            yield cell["bytes"] if isinstance(cell, dict) else cell, row.get("person")


def decode_face(data: bytes, size: int, file: str) -> Uint8Image:
    try:
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, TypeError) as error:  # TypeError: the cell is null or no bytes
        raise UsageError(f"expected images that decode, found one in {file} that does not: {error}") from None
    return to_uint8(resize(to_tensor(image)[None], size)[0].clamp(-1, 1))
