"""An image's own samples, as they are stored, with restored pixels in the places that were restored.

Everything else keeps the very values that its file has: 16 bits, CMYK, alpha, and of a JPEG the luma and chroma, whose
way to RGB and back would round every pixel.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.JpegImagePlugin import JpegImageFile

from bfr_models.pixels import Uint8Image
from tasks.export.notes import Notes
from tasks.images.channels import bit_depth_of, deep_of
from tasks.images.codec import FORMATS, DecodedImage, decode
from tasks.images.metadata import orientation_of
from tasks.images.sixteen_bit import to_8_bits, to_16_bits

Mask = NDArray[np.bool_]
"""(H, W)."""

_SRGB = ImageCms.createProfile("sRGB")
_INTENT = ImageCms.Intent.PERCEPTUAL

# EXIF orientation -> what turns upright pixels into the stored ones: the inverse of the codec's turns.
_AS_STORED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: np.rot90,
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@dataclass(frozen=True, eq=False)
class Canvas:
    """(H, W, channels) uint8 or uint16 samples, in the stored orientation; `mode` is Pillow's name of the channels."""

    samples: NDArray[Any]
    mode: str  # L, LA, RGB, RGBA, YCbCr, CMYK, LAB
    icc: bytes | None = None

    @property
    def is_deep(self) -> bool:
        return self.samples.dtype == np.uint16

    @property
    def image(self) -> Image.Image:
        """As a Pillow image, of 8 bits per channel."""
        samples = to_8_bits(self.samples) if self.is_deep else self.samples
        return Image.fromarray(np.ascontiguousarray(samples[..., 0] if self.mode == "L" else samples), self.mode)


def with_restored(
    original: bytes, restored: bytes, region: Callable[[tuple[int, int]], Mask] | None, notes: Notes
) -> Canvas | None:
    """The original's samples with those of the restored image where these differ; None if none do.

    `region`, of the (H, W) of the upright image: where a restored image may differ that was stored with loss. An image
    of another size than the original takes its place whole. RowError for an original that does not decode.
    """
    before, after = decode(original), decode(restored)
    canvas, orientation = _canvas(original, before, notes)
    if before.pixels.shape != after.pixels.shape:
        height, width = before.pixels.shape[:2]
        notes.add(f"the size was {width} x {height} px")
        return _replaced(canvas, before, after, orientation)
    changed = (before.pixels != after.pixels).any(axis=-1)
    if region is not None:
        changed &= region(changed.shape)
    if not changed.any():
        return None
    turn = _AS_STORED[orientation]
    mask, new = turn(changed), turn(_in_colours_of(canvas, after))
    samples = canvas.samples.copy()
    samples[..., : new.shape[2]][mask] = new[mask]
    return replace(canvas, samples=samples)


def _replaced(canvas: Canvas, before: DecodedImage, after: DecodedImage, orientation: int) -> Canvas:
    new = _in_colours_of(canvas, after)
    if before.alpha is not None and canvas.mode in ("LA", "RGBA"):
        size = (new.shape[1], new.shape[0])
        alpha = np.asarray(Image.fromarray(before.alpha).resize(size, Image.Resampling.BICUBIC))
        new = np.concatenate([new, (to_16_bits(alpha) if canvas.is_deep else alpha)[..., None]], axis=2)
    mode = canvas.mode if new.shape[2] == canvas.samples.shape[2] else canvas.mode.removesuffix("A")
    return replace(canvas, samples=np.ascontiguousarray(_AS_STORED[orientation](new)), mode=mode)


def _in_colours_of(canvas: Canvas, after: DecodedImage) -> NDArray[Any]:
    """The restored image, upright, (H, W, channels without alpha) in the mode and depth of the canvas."""
    if canvas.is_deep:
        deep = after.deep if after.deep is not None else to_16_bits(after.pixels)
        deep = deep[..., None] if deep.ndim == 2 else deep[..., :3]
        wanted = 1 if canvas.mode == "L" else 3
        return deep if deep.shape[2] == wanted else np.repeat(deep[..., :1], wanted, axis=2)
    if canvas.mode in ("RGB", "RGBA"):
        return after.pixels
    image = Image.fromarray(after.pixels)
    if canvas.mode in ("L", "LA"):
        return np.asarray(image.convert("L"))[..., None]
    if canvas.mode == "YCbCr":
        return np.asarray(image.convert("YCbCr"))
    return _separated(image, canvas.mode, canvas.icc)


def _separated(image: Image.Image, mode: str, icc: bytes | None) -> Uint8Image:
    """An sRGB image as CMYK (by the profile) or LAB: what `tasks/images/channels` does, undone."""
    try:
        target = ImageCms.createProfile("LAB") if mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        converted = ImageCms.profileToProfile(image, _SRGB, target, _INTENT, outputMode=mode)
        return np.asarray(converted or image.convert(mode))
    except (ImageCms.PyCMSError, OSError, ValueError):  # no profile, or none that fits
        return np.asarray(image.convert(mode))


def _canvas(data: bytes, before: DecodedImage, notes: Notes) -> tuple[Canvas, int]:
    """The samples of an image that decodes, and its orientation."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    if isinstance(image, JpegImageFile) and image.mode == "RGB" and not stores_rgb(image):
        image.draft("YCbCr", None)
    orientation, icc = orientation_of(image), image.info.get("icc_profile")
    image.load()
    as_read = _AS_STORED[orientation if image.format == "TIFF" else 1]  # Pillow turns TIFFs while it reads them
    deep = deep_of(image, data) if bit_depth_of(image, data) == 16 else None
    if deep is not None and deep.ndim == 2:
        return Canvas(as_read(deep)[..., None], "L", icc), orientation
    if deep is not None:  # read by OpenCV, which turns nothing
        is_turned = np.array_equal(_AS_STORED[orientation](before.pixels), to_8_bits(deep[..., :3]))
        return Canvas(deep, "RGB" if deep.shape[2] == 3 else "RGBA", icc), orientation if is_turned else 1
    if before.bit_depth == 16:
        notes.add("of its 16 bits per channel only 8 could be read and are written")
    mode = _mode_of(image)
    if image.mode in ("1", "P", "PA"):
        had = "two levels" if image.mode == "1" else "palette"
        notes.add(f"its {had} cannot hold the new pixels: it is {mode} of 8 bits now")
    samples = as_read(np.asarray(image if image.mode == mode else image.convert(mode)))
    return Canvas(samples[..., None] if samples.ndim == 2 else samples, mode, icc), orientation


def _mode_of(image: Image.Image) -> str:
    """The mode that holds what an image has."""
    if isinstance(image, JpegImageFile) or image.mode in ("LA", "RGBA", "CMYK", "LAB"):
        return image.mode
    if image.mode in ("1", "L"):
        return "LA" if image.has_transparency_data else "L"
    return "RGBA" if image.has_transparency_data else "RGB"


def stores_rgb(image: JpegImageFile) -> bool:
    """Whether a JPEG has red, green and blue as its components, and not luma and chroma."""
    return image.info.get("adobe_transform") == 0 or [layer[0] for layer in image.layer] == [*b"RGB"]
