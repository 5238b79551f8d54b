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
from tasks.images.channels import Channels
from tasks.images.codec import DecodedImage, decode
from tasks.images.jpeg_segments import split_jpeg
from tasks.images.kinds import kind_of
from tasks.images.limits import MAX_PIXELS
from tasks.images.png_chunks import header_of
from tasks.images.readers import read
from tasks.images.sixteen_bit import to_8_bits, to_16_bits
from tasks.images.tiff_directories import Tiff, contents
from tasks.images.tiff_reader import is_raw, read_tiff

Mask = NDArray[np.bool_]
"""(H, W)."""

_SRGB = ImageCms.createProfile("sRGB")
_INTENT = ImageCms.Intent.PERCEPTUAL
_PALETTE = 3  # TIFF's photometric interpretation

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
    mode: str  # L, LA, RGB, RGBA, YCbCr, CMYK, CMYKA, LAB
    icc: bytes | None = None
    factor: int = 1  # by how much it is larger than the original, a side

    @property
    def is_deep(self) -> bool:
        return self.samples.dtype == np.uint16

    @property
    def colours(self) -> str:
        """The mode without alpha."""
        return self.mode.removesuffix("A")

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
    canvas, orientation = _canvas(original, notes)
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
    if before.alpha is not None and canvas.mode != canvas.colours:
        size = (new.shape[1], new.shape[0])
        alpha = np.asarray(Image.fromarray(before.alpha).resize(size, Image.Resampling.BICUBIC))
        new = np.concatenate([new, (to_16_bits(alpha) if canvas.is_deep else alpha)[..., None]], axis=2)
    mode = canvas.mode if new.shape[2] == canvas.samples.shape[2] else canvas.colours
    samples = np.ascontiguousarray(_AS_STORED[orientation](new))
    return replace(canvas, samples=samples, mode=mode, factor=_factor(before.pixels.shape, new.shape))


def _factor(before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """The whole factor by which both sides have grown; 1 if there is none."""
    factor = after[0] // before[0]
    return factor if (after[0], after[1]) == (factor * before[0], factor * before[1]) else 1


def _in_colours_of(canvas: Canvas, after: DecodedImage) -> NDArray[Any]:
    """The restored image, upright, (H, W, channels without alpha) in the mode and depth of the canvas."""
    mode = canvas.colours
    if canvas.is_deep and after.deep is not None and mode in ("L", "RGB"):
        deep = after.deep[..., None] if after.deep.ndim == 2 else after.deep
        if mode == "L" or deep.shape[2] < 3:
            return np.repeat(deep[..., :1], 1 if mode == "L" else 3, axis=2)
        return deep[..., :3]
    new = _converted(after.pixels, mode, canvas.icc)
    return to_16_bits(new) if canvas.is_deep else new


def _converted(pixels: Uint8Image, mode: str, icc: bytes | None) -> Uint8Image:
    if mode == "RGB":
        return pixels
    image = Image.fromarray(pixels)
    if mode == "L":
        return np.asarray(image.convert("L"))[..., None]
    return np.asarray(image.convert(mode)) if mode == "YCbCr" else _separated(image, mode, icc)


def _separated(image: Image.Image, mode: str, icc: bytes | None) -> Uint8Image:
    """An sRGB image as CMYK (by the profile) or LAB: what `tasks/images/channels` does, undone."""
    try:
        target = ImageCms.createProfile("LAB") if mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(icc or b""))
        converted = ImageCms.profileToProfile(image, _SRGB, target, _INTENT, outputMode=mode)
        return np.asarray(converted or image.convert(mode))
    except (ImageCms.PyCMSError, OSError, ValueError):  # no profile, or none that fits
        return np.asarray(image.convert(mode))


def _canvas(data: bytes, notes: Notes) -> tuple[Canvas, int]:
    """The samples of an image that decodes, and its orientation."""
    kind = kind_of(data) or ""
    channels, beside, orientation = read(kind, data, MAX_PIXELS)
    if kind == "JPEG":
        return _of_jpeg(data, beside.icc), orientation
    if kind == "TIFF" and not _is_raw(data):
        return _of_tiff(data, beside.icc, notes), orientation
    return _of_channels(kind, data, channels, beside.icc, notes), orientation


def _is_raw(data: bytes) -> bool:
    tiff = Tiff(data)
    return is_raw(tiff, contents(tiff).image)


def _of_channels(kind: str, data: bytes, channels: Channels, icc: bytes | None, notes: Notes) -> Canvas:
    is_grey, has_alpha, has_palette = _said(kind, data)
    if has_palette:
        notes.add(f"its palette cannot hold the new pixels: it is {'grey' if is_grey else 'RGB'} of 8 bits now")
    colours: NDArray[Any] = channels.pixels[..., :1] if is_grey else channels.pixels
    alpha: NDArray[Any] = colours[..., :0] if channels.alpha is None else channels.alpha[..., None]
    if channels.deep is not None:
        deep = channels.deep[..., None] if channels.deep.ndim == 2 else channels.deep
        colours, alpha = np.split(deep, [1 if deep.shape[2] < 3 else 3], axis=2)
    if has_alpha and not alpha.shape[2]:
        alpha = np.full_like(colours[..., :1], np.iinfo(colours.dtype).max)
    mode = ("L" if colours.shape[2] == 1 else "RGB") + ("A" if alpha.shape[2] else "")
    return Canvas(np.concatenate([colours, alpha], axis=2), mode, icc)


def _said(kind: str, data: bytes) -> tuple[bool, bool, bool]:
    """Whether a PNG, BMP, GIF or WebP is stored as grey, with alpha, with a palette or less than 8 bits."""
    if kind == "PNG":
        header = header_of(data)
        return header.colour in (0, 4), header.colour in (4, 6), header.colour == 3 or header.depth < 8
    if kind not in ("BMP", "GIF", "WEBP"):  # a PNG is put beside it, of the channels that were read
        return False, False, False
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        return image.mode in ("1", "L"), "A" in image.mode, image.mode in ("1", "P")


def _of_jpeg(data: bytes, icc: bytes | None) -> Canvas:
    with Image.open(io.BytesIO(split_jpeg(data)[0]), formats=["JPEG"]) as image:
        assert isinstance(image, JpegImageFile)
        if image.mode == "RGB" and not stores_rgb(image):
            image.draft("YCbCr", None)
        image.load()
        samples = np.asarray(image)
        return Canvas(samples[..., None] if samples.ndim == 2 else samples, image.mode, icc)


def _of_tiff(data: bytes, icc: bytes | None, notes: Notes) -> Canvas:
    found = read_tiff(data)
    tiff = Tiff(data)
    tags = contents(tiff).image.tags
    bits, photometric = (tiff.numbers(tags.get(tag))[0] for tag in (258, 262))
    if photometric == _PALETTE:
        notes.add("its palette cannot hold the new pixels: it is RGB of 8 bits now")
    elif bits not in (8, 16):
        notes.add(f"its {bits or 1} bits cannot hold the new pixels: it has {8 * found.levels.itemsize} now")
    samples = found.levels[..., None] if found.levels.ndim == 2 else found.levels
    if found.alpha is None:
        return Canvas(samples, found.mode, icc)
    alpha = found.alpha.astype(samples.dtype) if found.alpha.dtype == samples.dtype else to_16_bits(found.alpha)
    return Canvas(np.concatenate([samples, alpha[..., None]], axis=2), f"{found.mode}A", icc)


def stores_rgb(image: JpegImageFile) -> bool:
    """Whether a JPEG has red, green and blue as its components, and not luma and chroma."""
    return image.info.get("adobe_transform") == 0 or [layer[0] for layer in image.layer] == [*b"RGB"]
