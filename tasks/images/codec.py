"""Pictures: from the bytes of an archive, which may be hostile, to pixels, and back with what is theirs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bfr_models.errors import RowError
from bfr_models.pixels import Uint8Image
from tasks.images.channels import bit_depth_of, deep_of, is_grey, rgb_and_alpha
from tasks.images.metadata import MAX_SEGMENTS, count_frames, count_scans, dpi_of, exif_of, icc_of, orientation_of
from tasks.images.sixteen_bit import Uint16Image, deep_png

MAX_PIXELS = 200_000_000
"""Decoding one this large takes about 3 GB."""
MAX_SCANS = 100
"""Of a progressive JPEG, which costs a pass over all its pixels for each; cameras and editors write about ten."""
MIN_SIDE = 4
FORMATS = (  # tried in this order; no other parser of Pillow is ever reached
    "JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF",
)  # fmt: skip

Format = Literal["png", "webp", "jpeg"]
_MAX_SIDE = {"webp": 16383, "jpeg": 65500}
_MAX_JPEG_EXIF = 65533
_PNG_LEVEL = 2  # at 512 px 13 ms and 296 kB; level 6: 51 ms and 281 kB

_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: np.rot90,
}


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded picture, upright.

    `pixels` is what a network sees. Colours under transparency are as stored, not blended with a background:
    no blending could be undone when `encode` puts the alpha back. `deep` is put back in the same way.
    """

    pixels: Uint8Image
    grey: bool
    """All three channels are equal everywhere."""
    bit_depth: int
    """8 or 16, as stored. 16 without `deep` means that only the upper 8 bits could be read."""
    n_frames: int
    format: str
    icc: bytes | None = None
    exif: bytes | None = None
    """With the orientation reset to upright."""
    dpi: tuple[float, float] | None = None
    alpha: Uint8Image | None = None
    """(H, W) uint8; None when opaque."""
    deep: Uint16Image | None = None
    """(H, W) grey, or (H, W, 3 or 4) RGB(A) uint16: all 16 bits."""


def decode(data: bytes | None, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """The first frame of a picture. RowError `missing`, `undecodable`, `too_large` or `too_small`."""
    if not data:
        raise RowError("missing", "expected a picture, found nothing")
    try:
        return _decode(data, max_pixels)
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError("too_large", f"expected at most {max_pixels / 1e6:g} megapixels; {error}") from error
    except Exception as error:  # Pillow raises a dozen kinds on garbage, SyntaxError and struct.error too
        raise RowError("undecodable", _what_is_wrong(data, error)) from error


def count_pixels(data: bytes | None) -> int:
    """How many pixels a picture will have when it is decoded, from its header; 0 if that does not read."""
    if not data:
        return 0
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # as in `decode`, which says what is wrong
        return 0


def encode(image: Uint8Image, fmt: Format = "png", quality: int = 95, like: DecodedImage | None = None) -> bytes:
    """A picture file of (H, W, 3) uint8 RGB pixels, deterministic for PNG.

    From `like`, the picture that this one was made of, come ICC profile, EXIF and resolution; grey stays
    grey. If the size is the same, alpha comes too (not in JPEG), and in a PNG of a 16-bit picture the pixels
    that did not change keep all their bits. RowError `too_large` where the format has no room.
    """
    height, width = image.shape[:2]
    if max(height, width) > _MAX_SIDE.get(fmt, 2**31 - 1):
        raise RowError(
            "too_large",
            f"expected at most {_MAX_SIDE[fmt]} px a side for {fmt}, got {width} x {height}; use png",
        )
    if like is None:
        return _save(Image.fromarray(image), fmt, quality)
    if like.grey:
        image = np.broadcast_to(_grey_of(image)[..., None], image.shape)
    same_size = like.pixels.shape == image.shape
    if same_size and like.deep is not None and fmt == "png":
        return deep_png(like.deep, image, like.pixels, like.icc, like.exif, like.dpi)
    canvas = Image.fromarray(image[..., 0] if like.grey else image)
    if like.grey and like.icc and like.icc[16:20] == b"RGB ":  # which a grey file may not carry
        canvas = canvas.convert("RGB")
    if same_size and like.alpha is not None and fmt != "jpeg":
        canvas.putalpha(Image.fromarray(like.alpha))
    exif = like.exif if fmt != "jpeg" or len(like.exif or b"") <= _MAX_JPEG_EXIF else None
    return _save(canvas, fmt, quality, icc_profile=like.icc, exif=exif, dpi=like.dpi)


def _save(image: Image.Image, fmt: Format, quality: int, **extra: Any) -> bytes:
    options: dict[str, dict[str, Any]] = {
        "png": {"compress_level": _PNG_LEVEL},
        "webp": {"quality": quality},
        "jpeg": {"quality": quality, "subsampling": 0},  # faces live in their colour edges
    }
    file = io.BytesIO()
    image.save(file, fmt, **options[fmt], **{key: value for key, value in extra.items() if value is not None})
    return file.getvalue()


def _grey_of(image: Uint8Image) -> Uint8Image:
    """(H, W) luma."""
    return np.ascontiguousarray(image[..., 0]) if is_grey(image) else np.asarray(Image.fromarray(image).convert("L"))


def _decode(data: bytes, max_pixels: int) -> DecodedImage:
    # Pillow's own guard against bombs is one global figure: it is set to ours, never switched off.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_size(*image.size, max_pixels)
    _check_scans(image, data)
    image.load()  # all of it: some formats have metadata behind the pixels
    orientation = orientation_of(image)
    bit_depth = bit_depth_of(image, data)
    icc, exif, dpi = icc_of(image), exif_of(image, orientation), dpi_of(image)
    deep = None
    if bit_depth == 16:
        image, deep = _with_deep(image, data)
    pixels, alpha = rgb_and_alpha(image, deep)
    return DecodedImage(
        pixels=_upright(pixels, orientation),
        grey=is_grey(pixels if deep is None else deep),
        bit_depth=bit_depth,
        n_frames=count_frames(data, image.format or ""),
        format={"MPO": "JPEG"}.get(image.format or "", image.format or ""),
        icc=icc,
        exif=exif,
        dpi=dpi,
        alpha=None if alpha is None else _upright(alpha, orientation),
        deep=None if deep is None else _upright(deep, orientation),
    )


def _with_deep(image: Image.Image, data: bytes) -> tuple[Image.Image, NDArray[np.uint16] | None]:
    """All 16 bits, and the picture: of a colour one Pillow's 8 bits are let go before OpenCV reads it."""
    if image.mode not in ("RGB", "RGBA"):
        return image, deep_of(image, data)
    image.close()
    deep = deep_of(image, data)
    if deep is None:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    return image, deep


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    return np.ascontiguousarray(_UPRIGHT[orientation](array))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RowError(
            "too_large",
            f"expected at most {max_pixels / 1e6:g} megapixels, found {width} x {height} = "
            f"{width * height / 1e6:g} megapixels",
        )
    if min(width, height) < MIN_SIDE:
        raise RowError("too_small", f"expected at least {MIN_SIDE} px a side, found {width} x {height}")


def _check_scans(image: Image.Image, data: bytes) -> None:
    if image.format in ("JPEG", "MPO") and count_scans(data, MAX_SCANS + 1) > MAX_SCANS:
        raise RowError(
            "undecodable", f"expected a JPEG of at most {MAX_SCANS} scans and {MAX_SEGMENTS} segments, found more"
        )


def _what_is_wrong(data: bytes, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its message is a memory address
        return f"expected a JPEG, PNG, WebP, TIFF, BMP or GIF, found {len(data)} bytes that start {data[:12]!r}"
    return f"expected a whole picture, found a broken one ({type(error).__name__}: {str(error)[:200]})"
