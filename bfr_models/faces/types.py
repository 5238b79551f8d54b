"""The contract between a photo and the models that find and recognise its faces.

Coordinates are pixels, (x, y), with pixel centres on whole numbers: the first pixel's centre is (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # it imports torch
    from bfr_models.pixels import Uint8Image


Points = NDArray[np.float64]
"""(n, 2) float64, (x, y) px."""

Matrix = NDArray[np.float64]
"""(2, 3) float64 affine map: (x, y) -> matrix @ (x, y, 1)."""


@dataclass(frozen=True, eq=False)  # arrays have no equality that is one bool
class DetectedFace:
    """One face in a photo, in that photo's pixels."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1
    landmarks: Points  # in the order of the detector's template
    score: float  # higher is surer; its scale is the detector's own

    @property
    def area(self) -> float:
        """Of its box."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)

    @property
    def middle(self) -> tuple[float, float]:
        """Of its box."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def prominence(self) -> float:
        """Detectors sort by it: large and sure faces first."""
        return self.area * self.score


class Detector(Protocol):
    """Finds faces. No base class: any object of this shape will do."""

    @property
    def template(self) -> Points:
        """Where its landmarks lie in a 512 px aligned face: what `align` brings them to."""
        ...

    def detect(self, image: Uint8Image) -> list[DetectedFace]:
        """The faces of a photo of any size, largest and surest first, in bounded time and memory."""
        ...

    def detect_all(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        """The faces of each photo, as `detect` finds them; faster where photos can share a network call."""
        ...

    def look_again(self, images: Sequence[Uint8Image]) -> list[list[DetectedFace]]:
        """The faces of photos in which none was found, with less demanded of them; none where it knows no better."""
        ...


class Recogniser(Protocol):
    """Turns aligned faces into identity vectors."""

    @property
    def name(self) -> str:
        """Stands beside every similarity, because numbers of two networks do not compare."""
        ...

    @property
    def sha256(self) -> str:
        """Of the network's file, lower case hex."""
        ...

    def embed(self, faces: Sequence[Uint8Image]) -> NDArray[np.float32]:
        """Aligned square faces of any size -> (n, d) float32 unit vectors, in the same order.

        The crop is fixed by the alignment, never detected anew: a restored face that has drifted
        is compared where its input was. A face's vector does not depend on its neighbours.
        """
        ...
