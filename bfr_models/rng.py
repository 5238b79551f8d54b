"""Randomness is an argument: one generator per face, seeded from (run seed, row id).

So batch size, shard order and retries cannot change a face. Seeds are derived without torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive_seed(run_seed: int, row_id: str) -> int:
    """A stable seed in [0, 2**63) for one row of one run."""
    digest = hashlib.blake2b(f"{run_seed}\0{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class RowNoise:
    """Standard normal noise, drawn for each face from its own generator.

    Drawn on the CPU whatever the device, so that a CPU and a GPU start from the same noise. Copied from pinned memory,
    so that nothing waits for a GPU: the next draw is made while it computes.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        import torch

        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._device = torch.device(device)

    def __call__(self, *shape: int) -> Tensor:
        """(B, *shape) float32 of N(0, 1); each call goes on where the last one stopped."""
        import torch

        noise = torch.empty((len(self._generators), *shape), pin_memory=self._device.type == "cuda")
        for row, generator in zip(noise, self._generators, strict=True):
            torch.randn(shape, generator=generator, out=row)
        return noise.to(self._device, non_blocking=True)
