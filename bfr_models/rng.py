"""Randomness is an argument: one generator per face, seeded from (run seed, row id).

So batch size, shard order and retries cannot change a face. Seeds are derived without torch. `OneStream` is how
DifFace's code draws instead: one seed, and images that take their turns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
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


class OneStream:
    """Standard normal noise out of one seeded stream, for images that take their turns, one at a time.

    That is what `torch.manual_seed` once and `torch.randn_like` at every draw give: the image at place k, counted from
    0, goes on where k others have stopped, each after `draws` draws. Drawn on the device, since the stream of a GPU is
    another one than a CPU's. To reach a place, all draws before it are made; where the last image began is remembered,
    so that images in order draw twice, and not for all before them.
    """

    def __init__(self, draws: int, device: torch.device | str = "cpu") -> None:
        import torch

        self._draws, self._device = draws, torch.device(device)
        self._reached: tuple[object, int, Tensor] | None = None  # (seed and shape, place, the generator's state there)

    def noise(self, seeds: Sequence[int], places: Sequence[int]) -> Callable[..., Tensor]:
        """(*shape) -> (B, *shape) float32 of N(0, 1), as `RowNoise`; of faces at these places, each call one draw."""
        generators: list[torch.Generator] = []

        def drawn(*shape: int) -> Tensor:
            import torch

            if not generators:
                generators.extend(self._at(seed, place, shape) for seed, place in zip(seeds, places, strict=True))
            return torch.stack([torch.randn(shape, generator=own, device=self._device) for own in generators])

        return drawn

    def _at(self, seed: int, place: int, shape: tuple[int, ...]) -> torch.Generator:
        """A generator for the image at a place of a seed's stream of images of this shape."""
        import torch

        generator, start = torch.Generator(self._device).manual_seed(seed), 0
        if self._reached is not None and self._reached[0] == (seed, shape) and self._reached[1] <= place:
            start = self._reached[1]
            generator.set_state(self._reached[2])
        for _ in range((place - start) * self._draws):
            torch.randn(shape, generator=generator, device=self._device)
        self._reached = (seed, shape), place, generator.get_state()
        return generator
