"""What a worker is told. Importing this imports no torch: the driver stays small."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from bfr_models.registry import ResolvedMethod


@dataclass(frozen=True)
class DetectorChoice:
    """A face detector and, where its weights are a file, which."""

    name: str
    weights: str | None = None  # a path, the same on every machine
    sha256: str | None = None


@dataclass(frozen=True)
class NetworkChoice:
    """A network that scores: numbers of two networks, or of two weights of one, do not compare."""

    name: str
    sha256: str  # of its weights


@dataclass(frozen=True)
class Measures:
    """What is measured beside identity, PSNR and SSIM; None: the weights are not here, or it is not wanted."""

    lpips: NetworkChoice | None = None
    inception: NetworkChoice | None = None
    distances: bool = False  # there is a set of faces to compare with: the recogniser's Fréchet sums are kept
    keep_embeddings: bool = False
    extra: tuple[str, ...] = ()  # of bfr_models.metrics.measures.EXTRA


@dataclass(frozen=True)
class PhotoSettings:
    """How faces are found in photos, and which of them are restored."""

    detector: DetectorChoice
    min_face: int
    max_faces: int
    reject_no_face: bool

    @property
    def description(self) -> dict[str, Any]:
        """What changes the output, as plain data: where the weights are does not."""
        described = asdict(self)
        del described["detector"]["weights"]
        return described


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold pictures."""

    image: str
    gt: str | None = None
    mask: str | None = None


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; travels to other machines."""

    destination: str
    method: ResolvedMethod
    seed: int
    columns: Columns
    format: Literal["png", "webp", "jpeg"]
    quality: int
    keep_input: bool
    recogniser: NetworkChoice | None
    min_identity: float | None
    batch_size: int | Literal["auto"]
    device: str
    threads: int | None = None  # of torch, on a CPU
    photos: PhotoSettings | None = None  # None: each picture is one face
    measures: Measures = Measures()
