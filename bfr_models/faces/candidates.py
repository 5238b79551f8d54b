"""What a face may become: as it is, the network's face, or half-way between the two.

    kept       x
    replaced   r             as fine as the photo, with the grain of x
    corrected  (x + r) / 2   half of the damage goes, and half of the network's own mistakes stay away

x is the face as it is in the photo, r the network's face at the photo's scale.
"""

from __future__ import annotations

import numpy as np

from bfr_models.faces.grain import add_grain, grain_of
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8

HALF = 0.5
"""Weight of the network's face in a corrected one."""


def replaced(restored: Uint8Image, crop: Uint8Image, grain_seed: int | None, scale: int = 1) -> Uint8Image:
    """The network's face, square, with the grain of `crop`, which is the face at the photo's own size.

    As large as `crop`, or up to twice as large as in a photo that is enlarged by `scale`, where the network has the
    detail: pasting shrinks it then. Without a seed it gets no grain.
    """
    side = max(len(crop), min(len(restored), 2 * scale * len(crop)))
    face = resized(restored, side)
    if grain_seed is None:
        return face
    return add_grain(face, grain_of(crop), side / len(crop), grain_seed)


def corrected(face: Uint8Image, crop: Uint8Image) -> Uint8Image:
    """Half-way from `crop` to `face`, which is the same `replaced`, at the size of `crop`."""
    total = crop.astype(np.uint16) + resized(face, len(crop)) + 1
    return (total // 2).astype(np.uint8)


def resized(image: Uint8Image, side: int) -> Uint8Image:
    """A square one at another side; itself where that is its own."""
    return image if len(image) == side else to_uint8(resize(to_tensor(image)[None], side)[0])
