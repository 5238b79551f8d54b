"""What restoring a face costs on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from bfr_models.device import local_device
from bfr_models.pixels import Uint8Image, resize, to_tensor
from bfr_models.registry import ResolvedMethod, load_method
from bfr_models.types import FaceBatch

FACES = 4


def seconds_per_face(method: ResolvedMethod, crops: Sequence[Uint8Image]) -> float | None:
    """Seconds that the method takes for one of a few faces, the networks loaded and warm; None without a face."""
    if not crops:
        return None
    restorer = load_method(method, local_device())
    faces = torch.stack([resize(to_tensor(crop)[None], restorer.size)[0] for crop in crops[:FACES]])

    def restore(some: torch.Tensor) -> None:
        restorer.restore(FaceBatch(tuple(map(str, range(len(some)))), some, tuple(range(len(some)))))

    restore(faces[:1])  # not timed: the first call of a network is slow
    began = time.monotonic()
    restore(faces)
    return (time.monotonic() - began) / len(faces)
