"""The contract between the engine and a restoration method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # methods are listed and checked without torch
    from torch import Tensor


@dataclass(frozen=True)
class FaceBatch:
    """Aligned faces on their way through a method.

    `images` is (B, 3, H, W) float32 in [-1, 1], RGB; a resized face may overshoot a little, which the authors' networks
    expect. `seeds` holds one seed per face, derived from (run seed, row id), so that its result does not depend on the
    batch it travels in. `places` holds each face's place in its file, for a run whose noise is one stream
    (`bfr_models.rng.OneStream`); all its seeds are the run's. `masks`, for methods that fill holes, is (B, 1, H, W)
    float32: 1 in the holes, 0 where the image is known.
    """

    ids: tuple[str, ...]
    images: Tensor
    seeds: tuple[int, ...]
    masks: Tensor | None = None
    places: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if len(shape) != 4 or shape[1] != 3 or str(self.images.dtype) != "torch.float32":
            raise ValueError(f"expected images (B, 3, H, W) float32, got {shape} {self.images.dtype}")
        if not len(self.ids) == len(self.seeds) == shape[0]:
            raise ValueError(
                f"expected one id and one seed per image, got {len(self.ids)} ids, "
                f"{len(self.seeds)} seeds, {shape[0]} images"
            )
        if self.places is not None and len(self.places) != shape[0]:
            raise ValueError(f"expected one place per image, got {len(self.places)} of {shape[0]}")
        if self.masks is not None:
            _check_masks(self.masks, (shape[0], 1, *shape[2:]))

    def with_images(self, images: Tensor) -> FaceBatch:
        """The same faces, in the same order, with other pixels, none of them holes."""
        return replace(self, images=images, masks=None)

    def __len__(self) -> int:
        return len(self.ids)


def _check_masks(masks: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(masks.shape) != shape or str(masks.dtype) != "torch.float32":
        raise ValueError(f"expected masks {shape} float32, got {tuple(masks.shape)} {masks.dtype}")
    if not bool(((masks == 0) | (masks == 1)).all()):
        raise ValueError(f"expected masks of 0 and 1, got values in [{float(masks.min())}, {float(masks.max())}]")


class Restorer(Protocol):
    """A method with its networks loaded. No base class: any object of this shape will do."""

    size: int
    """Side of the square faces that it takes and gives, in pixels."""

    def restore(self, batch: FaceBatch) -> FaceBatch:
        """Same ids, same order, restored pixels in [-1, 1]."""
        ...


@dataclass(frozen=True)
class NetworkChoice:
    """A network that scores. Numbers of two networks, or of two sets of weights of one, do not compare."""

    name: str
    sha256: str  # of its weight file
