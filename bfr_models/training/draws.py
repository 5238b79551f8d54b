"""Random numbers that do not depend on how many processes share a batch."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from bfr_models.rng import RowNoise, derive_seed


class Draws(RowNoise):
    """The random numbers of some faces of one step, and by calling it their noise (see `RowNoise`).

    Each face has a generator of its own, seeded from (seed, step, its number in the whole batch): so the same face is
    drawn the same, whichever worker has it, beside whichever others. What is drawn once for the batch comes from
    `common`, which every worker has in the same state.
    """

    def __init__(self, seed: int, step: int, faces: range, batch_size: int, device: torch.device | str = "cpu") -> None:
        """Of the faces with these numbers, out of `batch_size`; noise goes to the device, all else stays on the CPU."""
        super().__init__([derive_seed(seed, f"{step}/{face}") for face in faces], device)
        self.numbers = torch.tensor(faces)  # (n,) of the faces in the whole batch
        self.batch_size = batch_size
        self.common = torch.Generator().manual_seed(derive_seed(seed, f"{step}"))

    def uniform(self, *shape: int) -> Tensor:
        """(n, *shape) in [0, 1)."""
        return torch.stack([torch.rand(shape, generator=own) for own in self._generators])

    def integers(self, low: int, high: int) -> Tensor:
        """(n,) in low..high - 1."""
        return torch.cat([torch.randint(low, high, (1,), generator=own) for own in self._generators])

    def stratified(self) -> Tensor:
        """(n,) in [0, 1): of the whole batch one in each equal part, in random order."""
        order = torch.randperm(self.batch_size, generator=self.common)
        return (order[self.numbers] + self.uniform()) / self.batch_size

    def of(self, faces: Tensor) -> Self:
        """Those of some of the faces, a mask or indices on the CPU; they go on where these are."""
        some = object.__new__(type(self))
        some.__dict__.update(self.__dict__)
        chosen = torch.arange(len(self._generators))[faces].tolist()
        some._generators = [self._generators[face] for face in chosen]
        some.numbers = self.numbers[faces]
        return some


class BatchDraws(Draws):
    """The same, of a whole batch, but from one generator, and its noise from one of the device: for one worker that is
    to draw thousands of faces a second. A face's numbers depend on the batch around it."""

    def __init__(self, seed: int, step: int, batch_size: int, device: torch.device | str) -> None:
        own = derive_seed(seed, f"{step}")
        self.numbers, self.batch_size = torch.arange(batch_size), batch_size
        self.common = torch.Generator().manual_seed(own)
        self.on_device = torch.Generator(device).manual_seed(own)

    def __call__(self, *shape: int) -> Tensor:
        own = self.on_device
        return torch.randn((len(self.numbers), *shape), generator=own, device=own.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand((len(self.numbers), *shape), generator=self.common)

    def integers(self, low: int, high: int) -> Tensor:
        return torch.randint(low, high, (len(self.numbers),), generator=self.common)

    def of(self, faces: Tensor) -> Self:
        some = object.__new__(type(self))
        some.__dict__.update(self.__dict__)
        some.numbers = self.numbers[faces]
        return some
