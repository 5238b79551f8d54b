"""Decodes TIFFs: tifffile and imagecodecs read every layout; here levels become grey, RGB and alpha.

tifffile gets a directory with the tags that say how the pixels are stored, and no others: what a file says about
itself, its maker and its metadata never decides how it is read. What TIFF knows and is not read here is refused.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bfr_models.errors import RowError
from tasks.images.limits import MAX_PIXELS
from tasks.images.sixteen_bit import bands, full_range, to_8_bits
from tasks.images.tiff_directories import BLOCKS, OLD_JPEG, TILE, Directory, Tags, Tiff, contents, tile_fits

# Tags that say how the pixels are stored.
_LAYOUT = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 338, 347, 529, 530, 531, 532}
_OLD_JPEG_LAYOUT = {512, 513, 514, 515, 517, 518, 519, 520, 521}
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _COLOUR_MAP = 258, 259, 262, 277, 320
_MAKE = 271
_DEPTHS = (32997, 32998)
_ALPHA, _FORMAT, _INKS, _REFERENCE = 338, 339, 332, 532
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_RAW = (32803, 34892)  # a sensor's colour filter array, and linear raw
_OLD_STYLE_JPEG, _JPEG = 6, 7
_FILES = {_JPEG: "JPEG", 50001: "WEBP", 34712: "JPEG2000", 33003: "JPEG2000", 33005: "JPEG2000"}
_COMPRESSIONS = {1, 2, 3, 4, 5, 8, 32773, 32946, 50000, *_FILES}
_ASSOCIATED, _UNASSOCIATED = 1, (2, 999)  # values of ExtraSamples; 999 is Corel's
_UNSAID = (2,)  # without the tag a fourth channel is alpha, as its writers meant it
_MAX_SAMPLES = 16
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _LAB: 3, _YCBCR: 3}

Levels = NDArray[Any]
"""(H, W) or (H, W, channels), uint8 or uint16."""


@dataclass(frozen=True)
class TiffImage:
    """The image of a TIFF, as stored: not yet upright."""

    levels: Levels
    """Grey, RGB, CMYK or Lab without alpha, from 0 to the largest of its type."""
    alpha: Levels | None
    """(H, W), of the same type, and not multiplied into the colours."""
    mode: str
    """`L`, `RGB`, `CMYK` or `LAB`."""
    notes: list[str]


def read_tiff(data: bytes, image: Directory | None = None) -> TiffImage:
    """The image of a TIFF (the one that `contents` finds). RowError `undecodable` if it is stored in a way that is not
    read here; anything at all if it is broken."""
    tiff = Tiff(data)
    image = image or contents(tiff).image
    tags = image.tags

    def number(tag: int, default: int) -> int:
        return tiff.numbers(tags[tag])[0] if tag in tags else default

    compression, photometric = number(_COMPRESSION, 1), number(_PHOTOMETRIC, -1)
    if compression == _OLD_STYLE_JPEG or (photometric == _YCBCR and compression != _JPEG):
        return _read_by_libtiff(tiff, image)
    _require_readable(tiff, tags, compression, photometric)
    samples = number(_SAMPLES, 1)
    levels = _samples(tiff, image, compression)
    if photometric == _PALETTE:
        return TiffImage(_through_palette(levels, tiff.numbers(tags.get(_COLOUR_MAP))), None, "RGB", [])
    levels = full_range(levels, number(_BITS, 1))
    if photometric == _WHITE_IS_ZERO:
        grey = levels if levels.ndim == 2 else levels[..., 0]
        np.subtract(np.iinfo(levels.dtype).max, grey, out=grey)
    return _split(levels, photometric, samples, tiff.numbers(tags[_ALPHA]) if _ALPHA in tags else _UNSAID)


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of the image of a TIFF. ValueError or struct.error if it is broken."""
    image = contents(Tiff(data)).image
    return image.width, image.height


def is_raw(tiff: Tiff, image: Directory) -> bool:
    """Whether the image is a camera's raw data, and says of which camera."""
    return tiff.numbers(image.tags.get(_PHOTOMETRIC))[0] in _RAW and _MAKE in tiff.at(tiff.first).tags


def _require_readable(tiff: Tiff, tags: Tags, compression: int, photometric: int) -> None:
    bits = set(tiff.numbers(tags.get(_BITS))[: tiff.numbers(tags.get(_SAMPLES))[0] or 1]) if _BITS in tags else {1}
    samples = tiff.numbers(tags[_SAMPLES])[0] if _SAMPLES in tags else 1
    formats = set(tiff.numbers(tags[_FORMAT])) if _FORMAT in tags else {1}
    if photometric in _RAW:
        raise _refused("finished pixels", "a camera's raw data, which `bfr` does not develop")
    if photometric not in _COLOURS:
        raise _refused("grey, RGB, a palette, CMYK, YCbCr or Lab", f"photometric interpretation {photometric}")
    if compression not in _COMPRESSIONS:
        raise _refused("a compression that is read here", f"compression {compression}")
    if not formats <= {1, 4} or max(bits) > 16 or len(bits) != 1 or min(bits) < 1:
        depth = "/".join(map(str, sorted(bits)))
        kind = "" if formats <= {1, 4} else " of another kind than unsigned numbers"
        raise _refused("1 to 16 bits per channel, the same for all", f"{depth} bits{kind}, whose white is unknown")
    if not _COLOURS[photometric] <= samples <= _MAX_SAMPLES:
        raise _refused(f"{_COLOURS[photometric]} to {_MAX_SAMPLES} channels", f"{samples}")
    if photometric == _CMYK and _INKS in tags and tiff.numbers(tags[_INKS])[0] != 1:
        raise _refused("the inks cyan, magenta, yellow and black", "others")
    if any(tiff.numbers(tags[tag])[0] > 1 for tag in _DEPTHS if tag in tags):
        raise _refused("a flat image", "a volume")
    if photometric == _LAB and bits != {8}:
        raise _refused("Lab with 8 bits", f"{max(bits)}")


def _refused(expected: str, found: str) -> RowError:
    return RowError("undecodable", f"expected a TIFF with {expected}, found {found}")


def _samples(tiff: Tiff, image: Directory, compression: int) -> Levels:
    """All samples as stored, (H, W) or (H, W, channels)."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is raised as well
    _require_blocks(tiff, image, compression)
    layout = {tag: value for tag, value in image.tags.items() if tag in _LAYOUT}
    with tifffile.TiffFile(cast(IO[bytes], _WithDirectory(tiff, layout)), _multifile=False) as opened:
        page = opened.pages.first
        # One plane after the other behind each other if they are separate: (planes, 1, H, W, 1), else (1, 1, H, W, C).
        stored = page.asarray(squeeze=False, maxworkers=1, buffersize=16 * 2**20)
    if page.planarconfig == 2 and stored.shape[0] > 1:
        return _interleaved(stored[:, 0, :, :, 0])
    return stored[0, 0, ..., 0] if stored.shape[4] == 1 else stored[0, 0]


def _interleaved(planes: Levels) -> Levels:
    count, height, width = planes.shape
    out = np.empty((height, width, count), planes.dtype)
    for band in bands(height):
        out[band] = planes[:, band].transpose(1, 2, 0)
    return out


def _require_blocks(tiff: Tiff, image: Directory, compression: int) -> None:
    """That all strips or tiles are there, and none unpacks to more than its part of the image."""
    tags = image.tags
    starts, lengths = next((pair for pair in BLOCKS if pair[0] in tags), BLOCKS[0])
    if starts not in tags or lengths not in tags:
        raise _refused("strips or tiles", "neither")
    width, height = image.width, image.height
    block = width * height
    if starts == BLOCKS[1][0]:
        side = [tiff.numbers(tags.get(tag))[0] for tag in TILE]
        block = side[0] * side[1]
        if not tile_fits(tiff, image):
            raise _refused("tiles that fit the image", f"tiles of {side[0]} x {side[1]}")
    for start, length in zip(tiff.numbers(tags[starts]), tiff.numbers(tags[lengths]), strict=True):
        if not length:
            raise _refused("all strips or tiles", "some that are empty")
        if start + length > len(tiff.data):
            raise _refused("all strips or tiles", "a file that is cut off")
        if compression in _FILES and _pixels_of(tiff.slice(start, length), _FILES[compression]) > max(4 * block, 2**16):
            raise _refused("strips or tiles that fit the image", "larger ones")


def _pixels_of(block: memoryview, kind: str) -> int:
    with Image.open(io.BytesIO(block), formats=[kind]) as image:
        return image.width * image.height


class _WithDirectory(io.RawIOBase):
    """A TIFF whose only directory is another one. The image data is not copied."""

    def __init__(self, tiff: Tiff, tags: Tags) -> None:
        end = len(tiff.data) + len(tiff.data) % 2
        head = tiff.header(end)
        self._parts = [
            memoryview(head),
            tiff.data[len(head) :],
            memoryview(bytes(end - len(tiff.data)) + tiff.directory(tags, end)),
        ]
        self._size, self._at = sum(map(len, self._parts)), 0

    def readinto(self, buffer: Any) -> int:
        out, done = memoryview(buffer).cast("B"), 0
        start = 0
        for part in self._parts:
            if done < len(out) and start <= self._at < start + len(part):
                piece = part[self._at - start : self._at - start + len(out) - done]
                out[done : done + len(piece)] = piece
                done, self._at = done + len(piece), self._at + len(piece)
            start += len(part)
        return done

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _through_palette(indices: Levels, colours: tuple[int, ...]) -> Levels:
    """(H, W, 3) uint8. Palettes have 16 bits, of which old writers filled the lower 8 alone."""
    if len(colours) < 3 or len(colours) % 3:
        raise _refused("a palette", "none")
    entries = np.array(colours, np.uint16).reshape(3, -1).T
    table = (entries if entries.max() < 256 else entries >> 8).astype(np.uint8)
    if indices.ndim == 3:
        indices = indices[..., 0]
    if indices.size and int(indices.max()) >= len(table):
        raise _refused("indices into its palette", "one outside of it")
    out = np.empty((*indices.shape, 3), np.uint8)
    for band in bands(len(indices)):
        out[band] = table[indices[band].astype(np.intp)]
    return out


def _split(levels: Levels, photometric: int, samples: int, extra: tuple[int, ...]) -> TiffImage:
    """Colours and alpha. Of further channels nobody says what they are."""
    count = _COLOURS[photometric]
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[count] if photometric != _LAB else "LAB"
    if levels.ndim == 2:
        return TiffImage(levels, None, mode, [])
    colours = levels[..., 0] if count == 1 else levels[..., :count]
    kinds = (*extra, *([0] * samples))[: samples - count]
    found = next((at for at, kind in enumerate(kinds) if kind in (_ASSOCIATED, *_UNASSOCIATED)), None)
    notes = []
    if unknown := len(kinds) - (found is not None):
        notes.append(f"{unknown} further channel{'s' * (unknown > 1)} left out")
    alpha = None if found is None else np.ascontiguousarray(levels[..., count + found])
    if alpha is not None and kinds[found or 0] == _ASSOCIATED and mode in ("L", "RGB"):
        colours = _divided(colours, alpha)
        notes.append("colours divided by the alpha that was multiplied into them")
    if mode in ("CMYK", "LAB") and alpha is not None:
        alpha = to_8_bits(alpha) if alpha.dtype == np.uint16 else alpha
    return TiffImage(np.ascontiguousarray(colours), alpha, mode, notes)


def _divided(colours: Levels, alpha: Levels) -> Levels:
    """Colours without the alpha that is multiplied into them, rounded; as they are where alpha is 0."""
    top = int(np.iinfo(colours.dtype).max)
    out = np.empty_like(colours)
    for band in bands(len(colours)):
        below = alpha[band].astype(np.uint32)
        below = below if colours.ndim == 2 else below[..., None]
        whole = (colours[band].astype(np.uint32) * np.uint32(top) + below // 2) // np.maximum(below, 1)
        out[band] = np.where(below == 0, colours[band], np.minimum(whole, top))
    return out


def _read_by_libtiff(tiff: Tiff, image: Directory) -> TiffImage:
    """What libtiff converts to RGB itself: YCbCr that is no JPEG, and the JPEG of TIFF 6.0."""
    import imagecodecs

    if tiff.numbers(image.tags.get(_BITS))[0] not in (0, 8):
        raise _refused("YCbCr of 8 bits", f"{tiff.numbers(image.tags.get(_BITS))[0]}")
    if not any(pair[0] in image.tags for pair in (*BLOCKS, OLD_JPEG)):
        raise _refused("strips or tiles", "neither")
    if image.width * image.height > MAX_PIXELS:
        raise _refused("an image of bounded size", "a larger one")
    if OLD_JPEG[0] not in image.tags:
        _require_blocks(tiff, image, 1)
    kept = {tag: value for tag, value in image.tags.items() if tag in _LAYOUT | _OLD_JPEG_LAYOUT}
    # Without the orientation: libtiff would apply a part of it.
    rgba = np.asarray(imagecodecs.tiff_decode(_WithDirectory(tiff, kept).readall(), index=0, asrgb=True))
    if rgba.shape[:2] != (image.height, image.width):
        raise _refused(f"{image.width} x {image.height} pixels", f"{rgba.shape[1]} x {rgba.shape[0]}")
    return TiffImage(np.ascontiguousarray(rgba[..., :3]), None, "RGB", [])
