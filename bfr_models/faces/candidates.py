"""What a face may become: as it is, the network's face, or itself plus what the network changed.

    kept       x
    replaced   r                          as fine as the photo, with the grain of x
    corrected  x + up(r - down(x))        detail that is finer than the network can draw stays the input's

x is the face as it is in the photo, r the network's face, down and up go to r's size and back.
"""

from __future__ import annotations

from torch import Tensor

from bfr_models.faces.grain import add_grain, grain_of
from bfr_models.pixels import Uint8Image, resize, to_tensor, to_uint8


def replaced(restored: Uint8Image, crop: Uint8Image, grain_seed: int | None, scale: int = 1) -> Uint8Image:
    """The network's face, square, with the grain of `crop`, which is the face at the photo's own size.

    As large as `crop`, or up to twice as large as in a photo that is enlarged by `scale`, where the network has the
    detail: pasting shrinks it then. Without a seed it gets no grain.
    """
    side = max(len(crop), min(len(restored), 2 * scale * len(crop)))
    face = _resized(restored, side)
    if grain_seed is None:
        return face
    return add_grain(face, grain_of(crop), side / len(crop), grain_seed)


def corrected(restored: Uint8Image, crop: Uint8Image) -> Uint8Image:
    """`crop` plus the network's change, at the size of `crop`."""
    return with_change(crop, correction(restored, crop))


def with_change(crop: Uint8Image, change: Tensor) -> Uint8Image:
    """`crop` plus a `correction`."""
    return to_uint8(to_tensor(crop) + resize(change[None], len(crop))[0])


def correction(restored: Uint8Image, crop: Uint8Image) -> Tensor:
    """(3, size, size): what the network changed, in units of half the range, at the network's size."""
    return to_tensor(restored) - to_tensor(_resized(crop, len(restored)))


def _resized(image: Uint8Image, side: int) -> Uint8Image:
    return image if len(image) == side else to_uint8(resize(to_tensor(image)[None], side)[0])
