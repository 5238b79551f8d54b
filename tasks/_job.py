"""What a worker is told. Importing this imports no torch: the driver stays small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bfr_models.registry import ResolvedMethod


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; travels to other machines."""

    destination: str
    method: ResolvedMethod
    seed: int
    column: str
    gt_column: str | None
    format: Literal["png", "webp", "jpeg"]
    quality: int
    keep_input: bool
    min_identity: float | None
    batch_size: int
    device: str
    threads: int | None = None  # of torch, on a CPU
