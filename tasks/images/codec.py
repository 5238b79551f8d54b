"""Decodes images from possibly hostile bytes, and encodes them again with the metadata of the original."""

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
from tasks.images.glimpse import FORMATS
from tasks.images.metadata import MAX_SEGMENTS, count_frames, count_scans, dpi_of, exif_of, icc_of, orientation_of
from tasks.images.sixteen_bit import Uint16Image, deep_png

MAX_PIXELS = 200_000_000
"""Decoding an image of this size takes about 3 GB of memory."""
MAX_SCANS = 100
"""Scans of a progressive JPEG. Each costs the decoder a pass over all pixels; cameras and editors write about ten."""
MIN_SIDE = 4

Format = Literal["png", "webp", "jpeg"]
_MAX_SIDE = {"webp": 16383, "jpeg": 65500}  # 14 bits in VP8; libjpeg's JPEG_MAX_DIMENSION
_MAX_JPEG_EXIF = 65533  # bytes in an APP1 segment: its 16-bit length includes the two bytes of the length
_PNG_LEVEL = 2  # zlib's level. At 512 px it takes 13 ms and gives 296 kB; level 6: 51 ms, 281 kB

# EXIF orientation -> what turns the stored pixels upright.
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
    """A decoded image, turned upright.

    `pixels` is what a network sees. Colours under transparency are as stored, not blended with a background, because
    `encode` could not undo the blending when it puts the alpha channel back. `deep` is put back in the same way.
    """

    pixels: Uint8Image
    grey: bool
    """Whether all three channels are equal everywhere."""
    bit_depth: int
    """8 or 16, as stored. 16 without `deep`: only the upper 8 bits could be read."""
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
    """The first frame of an image. RowError `missing`, `undecodable`, `too_large` or `too_small`."""
    if not data:
        raise RowError("missing", "expected a picture, found nothing")
    try:
        return _decode(data, max_pixels)
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError("too_large", f"expected at most {max_pixels / 1e6:g} megapixels; {error}") from error
    except Exception as error:  # Pillow raises a dozen types for garbage, SyntaxError and struct.error among them
        raise RowError("undecodable", _what_is_wrong(data, error)) from error


def count_pixels(data: bytes | None) -> int:
    """How many pixels an image has, by its header and without decoding it; 0 if the header cannot be read."""
    if not data:
        return 0
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:  # any type, as in `decode`, which reports what is wrong
        return 0


def encode(image: Uint8Image, fmt: Format = "png", quality: int = 95, like: DecodedImage | None = None) -> bytes:
    """(H, W, 3) uint8 RGB pixels as a file; the same bytes each time for PNG.

    `like` is the image that this one was made from: its ICC profile, EXIF and resolution are kept, and grey stays grey.
    At the same size its alpha is kept too (not in JPEG), and in the PNG of a 16-bit image the pixels that did not
    change keep all 16 bits. RowError `too_large` if a side exceeds what the format can hold.
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
    if like.grey and like.icc and like.icc[16:20] == b"RGB ":  # the profile's colour space: not valid in a grey file
        canvas = canvas.convert("RGB")
    if same_size and like.alpha is not None and fmt != "jpeg":
        canvas.putalpha(Image.fromarray(like.alpha))
    exif = like.exif if fmt != "jpeg" or len(like.exif or b"") <= _MAX_JPEG_EXIF else None
    return _save(canvas, fmt, quality, icc_profile=like.icc, exif=exif, dpi=like.dpi)


def _save(image: Image.Image, fmt: Format, quality: int, **extra: Any) -> bytes:
    options: dict[str, dict[str, Any]] = {
        "png": {"compress_level": _PNG_LEVEL},
        "webp": {"quality": quality},
        "jpeg": {
            "quality": quality,
            "subsampling": 0,
        },  # 4:4:4, since subsampled chroma blurs the edges of lips and eyes
    }
    file = io.BytesIO()
    image.save(file, fmt, **options[fmt], **{key: value for key, value in extra.items() if value is not None})
    return file.getvalue()


def _grey_of(image: Uint8Image) -> Uint8Image:
    """(H, W) luma."""
    return np.ascontiguousarray(image[..., 0]) if is_grey(image) else np.asarray(Image.fromarray(image).convert("L"))


def _decode(data: bytes, max_pixels: int) -> DecodedImage:
    # Pillow's guard against decompression bombs is a module global. It is set to our limit, never switched off.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    _check_size(*image.size, max_pixels)
    _check_scans(image, data)
    image.load()  # before the metadata, which a PNG may have after its pixels
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
        format={"MPO": "JPEG"}.get(image.format or "", image.format or ""),  # MPO: a JPEG with further JPEGs behind it
        icc=icc,
        exif=exif,
        dpi=dpi,
        alpha=None if alpha is None else _upright(alpha, orientation),
        deep=None if deep is None else _upright(deep, orientation),
    )


def _with_deep(image: Image.Image, data: bytes) -> tuple[Image.Image, NDArray[np.uint16] | None]:
    """The image and all its 16 bits. For colour, Pillow's 8-bit copy is freed before OpenCV decodes it again."""
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
    if isinstance(error, UnidentifiedImageError):  # its message has a memory address, which differs each time
        # Nor its bytes: of an address that a stranger chose they would tell him what is there.
        return f"expected a JPEG, PNG, WebP, TIFF, BMP or GIF, found {len(data)} bytes of something else"
    return f"expected a whole picture, found a broken one ({type(error).__name__}: {str(error)[:200]})"
