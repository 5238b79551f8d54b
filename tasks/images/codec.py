"""Decodes images from possibly hostile bytes, and encodes them again with the metadata of the original."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bfr_models.errors import RowError
from bfr_models.upscalers.lanczos import enlarge
from tasks.images import readers
from tasks.images.beside import Beside
from tasks.images.carried import options, png_chunks, without_place
from tasks.images.channels import is_grey
from tasks.images.enlarged import MOST_BYTES, enlarged_beside, enlarged_bytes, enlarged_png
from tasks.images.kinds import kind_of
from tasks.images.limits import MAX_PIXELS
from tasks.images.metadata import icc_that_fits
from tasks.images.png import write_png
from tasks.images.sixteen_bit import Uint16Image

if TYPE_CHECKING:
    from bfr_models.pixels import Uint8Image

Format = Literal["png", "webp", "jpeg"]
_MAX_SIDE = {"webp": 16383, "jpeg": 65500}  # 14 bits in VP8; libjpeg's JPEG_MAX_DIMENSION
_ADDRESS = re.compile("0x[0-9a-fA-F]+")  # of an object in memory: it differs each time

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
    format: str
    beside: Beside = field(default_factory=Beside)
    """Profile, EXIF, resolution and texts as they hold for the upright image; what was left out of the file."""
    alpha: Uint8Image | None = None
    """(H, W) uint8; None when opaque."""
    deep: Uint16Image | None = None
    """(H, W) grey, (H, W, 2) grey and alpha, or (H, W, 3 or 4) RGB(A) uint16: all 16 bits."""

    @property
    def n_frames(self) -> int:
        """Frames, pages or pictures of equal rank, of which this is the first."""
        return self.beside.n_frames

    @property
    def icc(self) -> bytes | None:
        return self.beside.icc

    @property
    def exif(self) -> bytes | None:
        """With the orientation reset to upright, and without a thumbnail."""
        return self.beside.exif

    @property
    def dpi(self) -> tuple[float, float] | None:
        return self.beside.dpi


def decode(data: bytes | None, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """The first frame of an image. RowError `missing`, `undecodable`, `too_large` or `too_small`."""
    if data is None:
        raise RowError("missing", "expected a picture, found nothing")
    if not data:
        raise RowError("undecodable", "expected a picture, found an empty file (0 bytes)")
    kind = kind_of(data)
    if kind is None:  # not its bytes: of an address that a stranger chose they would tell him what is there
        raise RowError(
            "undecodable",
            "expected a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIF, JPEG XL, JPEG 2000, raw, PDF or DICOM file, found "
            f"{len(data)} bytes of something else",
        )
    try:
        return _decode(kind, data, max_pixels)
    except RowError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RowError("too_large", f"expected at most {max_pixels / 1e6:g} megapixels; {error}") from error
    except (MemoryError, ImportError):  # the machine's fault: another time or another one may do better
        raise
    except Exception as error:  # decoders raise a dozen types for garbage, SyntaxError and struct.error among them
        raise RowError("undecodable", _what_is_wrong(kind, error)) from error


def count_pixels(data: bytes | None) -> int:
    """How many pixels an image has, by its header and without decoding it; 0 if the header cannot be read."""
    kind = kind_of(data) if data else None
    try:
        width, height = readers.size(kind, data) if data and kind else (0, 0)
    except Exception:  # any type, as in `decode`, which reports what is wrong
        return 0
    return width * height


def encode(
    image: Uint8Image, fmt: Format = "png", quality: int = 95, like: DecodedImage | None = None, scale: int = 1
) -> bytes:
    """(H, W, 3) uint8 RGB pixels as a file; the same bytes each time for PNG.

    `like` is the image that this one was made from: its ICC profile, EXIF and resolution are kept, and grey stays grey.
    At the same size its alpha is kept too (not in JPEG), and in the PNG of a 16-bit image the pixels that did not
    change keep all 16 bits. `scale` is the factor by which it was enlarged meanwhile: its alpha and 16 bits are then
    enlarged as well, and its resolution grows, so that it prints as large as before. RowError `too_large` if a side
    exceeds what the format can hold.
    """
    height, width = image.shape[:2]
    if max(height, width) > _MAX_SIDE.get(fmt, 2**31 - 1):
        raise RowError(
            "too_large",
            f"expected at most {_MAX_SIDE[fmt]} px a side for {fmt}, got {width} x {height}; use png",
        )
    if like is None:
        return write_png(height, [image]) if fmt == "png" else _save(Image.fromarray(image), fmt, quality)
    if like.grey:
        image = np.broadcast_to(_grey_of(image)[..., None], image.shape)
    like = replace(like, beside=enlarged_beside(like.beside, scale))
    same_size = scale > 1 or like.pixels.shape == image.shape
    if fmt == "png":
        return _png(image, scale, like if same_size else replace(like, pixels=image, alpha=None, deep=None))
    canvas = Image.fromarray(image[..., 0] if like.grey else image)
    if like.grey and _has_rgb_profile(like):
        canvas = canvas.convert("RGB")
    if same_size and like.alpha is not None and fmt == "webp":
        canvas.putalpha(Image.fromarray(enlarge(like.alpha, scale)))
    return _save(canvas, fmt, quality, **options(like.beside, fmt))


def _png(image: Uint8Image, scale: int, like: DecodedImage) -> bytes:
    if like.deep is not None and _has_rgb_profile(like):
        like = replace(like, deep=_in_colours(like.deep))
    beside = like.beside if like.deep is None else _with_fitting_icc(like)
    grey = like.grey and not _has_rgb_profile(like)
    return enlarged_png(image, scale, like.pixels, grey, like.alpha, like.deep, png_chunks(beside))


def largest_factor(image: DecodedImage, fmt: Format) -> int:
    """The largest of 1, 2 and 4 by which an image may be enlarged and still be written."""
    longest, limit = max(image.pixels.shape), _MAX_SIDE.get(fmt, 2**31 - 1)
    for factor in (4, 2):
        takes = enlarged_bytes(image.pixels, image.deep, image.grey, image.alpha is not None, factor)
        if factor * longest <= limit and takes <= MOST_BYTES:
            return factor
    return 1


def notes_on(like: DecodedImage, fmt: Format, image: Uint8Image, scale: int = 1, *, is_redrawn: bool = False) -> str:
    """What was left out of a file that is written again as `image`, or had to be converted; "" if nothing was.
    `is_redrawn`: a network has drawn all of it anew."""
    notes = [f"frame 1 of {like.n_frames}"] if like.n_frames > 1 else []
    notes += like.beside.notes
    same_size = scale > 1 or like.pixels.shape == image.shape
    lost = without_place(like.beside, fmt)
    if like.alpha is not None and (fmt == "jpeg" or not same_size):
        lost.append("transparency")
    if like.bit_depth == 16 and (fmt != "png" or not same_size or like.deep is None or is_redrawn):
        lost.append("the lower 8 of 16 bits")
    return "; ".join([*notes, *(f"{what} left out" for what in lost)])


def _has_rgb_profile(image: DecodedImage) -> bool:
    """Whether the profile's colour space is RGB: not valid in a grey file."""
    return image.icc is not None and image.icc[16:20] == b"RGB "


def _in_colours(deep: Uint16Image) -> Uint16Image:
    """Grey as RGB; alpha stays."""
    if deep.ndim == 3 and deep.shape[2] > 2:
        return deep
    planes = np.atleast_3d(deep)
    return np.concatenate([np.repeat(planes[..., :1], 3, axis=2), planes[..., 1:]], axis=2)


def _with_fitting_icc(like: DecodedImage) -> Beside:
    """Without a profile that is not for the channels as they are written."""
    grey = like.deep is not None and (like.deep.ndim == 2 or like.deep.shape[2] == 2)
    misfit = bool(like.icc) and (like.icc or b"")[16:20] != (b"GRAY" if grey else b"RGB ")
    return replace(like.beside, icc=None) if misfit else like.beside


def _save(image: Image.Image, fmt: Format, quality: int, **extra: Any) -> bytes:
    options: dict[str, dict[str, Any]] = {
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


def _decode(kind: str, data: bytes, max_pixels: int) -> DecodedImage:
    channels, beside, orientation = readers.read(kind, data, max_pixels)
    deep, alpha = channels.deep, channels.alpha
    grey = is_grey(channels.pixels if deep is None else deep)
    if beside.icc and int.from_bytes(beside.icc[:4]) > len(beside.icc):  # a profile starts with its size
        beside.icc = None
        beside.left_out("a colour profile that is cut off")
    elif beside.icc and not channels.icc_fits:
        beside.icc = None
        beside.notes.append("colours converted to sRGB")
    elif beside.icc and icc_that_fits(beside.icc, grey=grey) is None:
        beside.icc = None
        beside.left_out("a colour profile that does not fit the pixels")
    return DecodedImage(
        pixels=_upright(channels.pixels, orientation),
        grey=grey,
        bit_depth=channels.bit_depth,
        format=kind,
        beside=beside,
        alpha=None if alpha is None else _upright(alpha, orientation),
        deep=None if deep is None else _upright(deep, orientation),
    )


def _upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    return np.ascontiguousarray(_UPRIGHT[orientation](array))


def _what_is_wrong(kind: str, error: Exception) -> str:
    reason = _ADDRESS.sub("somewhere", str(error))[:200]
    return f"expected a whole {kind}, found a broken one ({type(error).__name__}: {reason})"
