"""Reads the first frame of a DICOM file (pydicom, of the extra `formats`)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bfr_models.errors import RowError
from tasks.images.beside import Beside
from tasks.images.channels import Channels, of_levels
from tasks.images.extras import of_extra
from tasks.images.limits import check_size
from tasks.images.sixteen_bit import full_range

Read = tuple[Channels, Beside, int]
_GREY, _COLOURS = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL_422", "YBR_FULL", "YBR_ICT", "YBR_RCT")
_JPEG = "1.2.840.10008.1.2.4."
_DECODERS = {
    **dict.fromkeys(("50", "51", "57", "70"), "jpeg_decode"),
    **dict.fromkeys(("80", "81"), "jpegls_decode"),
    **dict.fromkeys(("90", "91"), "jpeg2k_decode"),
}
_BIG_ENDIAN = "1.2.840.10008.1.2.2"


def read_dicom(data: bytes, max_pixels: int) -> Read:
    """Grey of 8 to 16 bits over the range that the file states (its window, or all its bits), or RGB of 8 bits."""
    found = _dataset(data)
    width, height = _size(found)
    check_size(width, height, max_pixels)
    meaning, bits = str(found.get("PhotometricInterpretation", "")), int(found.get("BitsStored") or 0)
    if meaning not in (*_GREY, *_COLOURS):
        raise _refused("in grey or RGB", meaning or "no image")
    levels = _frame(found, meaning)
    if levels.shape[:2] != (height, width):
        raise _refused(f"of {width} x {height} px", f"{levels.shape[1]} x {levels.shape[0]}")
    beside = Beside(n_frames=max(1, int(found.get("NumberOfFrames") or 1)))
    beside.left_out("DICOM's own fields")
    if levels.ndim == 3:
        if levels.dtype != np.uint8 or levels.shape[2] != 3:
            raise _refused("in RGB of 8 bits", f"{levels.shape[2]} channels of {levels.dtype}")
        return of_levels(np.ascontiguousarray(levels), None, "RGB", None), beside, 1
    shown = _as_shown(found, levels, bits)
    if meaning == "MONOCHROME1":
        np.subtract(np.iinfo(shown.dtype).max, shown, out=shown)
    return of_levels(shown, None, "L", None), beside, 1


def dicom_size(data: bytes) -> tuple[int, int]:
    return _size(_dataset(data))


def _size(found: Any) -> tuple[int, int]:
    return int(found.get("Columns") or 0), int(found.get("Rows") or 0)


def _dataset(data: bytes) -> Any:
    return of_extra("pydicom", "DICOM").dcmread(_File(data))


class _File(io.BytesIO):
    """pydicom reads all that is left only where that is deflated, and inflates it without a bound."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            raise _refused("that is not deflated as a whole", "one that is")
        return super().read(size)


def _refused(expected: str, found: str) -> RowError:
    return RowError("undecodable", f"expected a DICOM image {expected}, found {found}")


def _frame(found: Any, meaning: str) -> NDArray[Any]:
    """The first frame as stored, (H, W) or (H, W, channels)."""
    syntax = found.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return _plain_frame(found, meaning, str(syntax))
    import imagecodecs
    from pydicom.encaps import get_frame

    decoder = _DECODERS.get(str(syntax).removeprefix(_JPEG))
    if decoder is None:
        raise _refused("that is stored plainly or as JPEG", f"transfer syntax {syntax}")
    data = get_frame(found.PixelData, 0, number_of_frames=int(found.get("NumberOfFrames") or 1))
    return np.asarray(getattr(imagecodecs, decoder)(data))


def _plain_frame(found: Any, meaning: str, syntax: str) -> NDArray[Any]:
    if meaning not in (*_GREY, "RGB"):
        raise _refused("in grey or RGB", f"{meaning} without compression")
    (width, height), count = _size(found), int(found.get("SamplesPerPixel") or 1)
    sign, size = "ui"[int(found.get("PixelRepresentation") or 0)], int(found.BitsAllocated) // 8
    kind = np.dtype(f"{'>' if syntax == _BIG_ENDIAN else '<'}{sign}{size}")
    stored = np.frombuffer(found.PixelData, kind, height * width * count)
    if count == 1:
        return stored.reshape(height, width)
    if int(found.get("PlanarConfiguration") or 0):
        return stored.reshape(count, height, width).transpose(1, 2, 0)
    return stored.reshape(height, width, count)


def _as_shown(found: Any, levels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Grey levels by the file's own scale and window, over the whole of 8 or 16 bits."""
    if not 1 <= bits <= 16:
        raise _refused("of 1 to 16 bits", f"{bits}")
    centre, width = (_first(found.get(name)) for name in ("WindowCenter", "WindowWidth"))
    kind = np.uint8 if bits <= 8 else np.uint16
    if centre is None or width is None or width <= 1:
        if np.issubdtype(levels.dtype, np.signedinteger):
            raise _refused("without signs, or with a window", "neither, so that nobody says what is white")
        return full_range((levels & ((1 << bits) - 1)).astype(kind), bits)
    slope, intercept = (_first(found.get(f"Rescale{name}")) for name in ("Slope", "Intercept"))
    scaled = levels.astype(np.float32) * (1.0 if slope is None else slope) + (intercept or 0.0)
    top = np.iinfo(kind).max  # DICOM PS3.3, C.11.2.1.2
    return np.clip(np.rint(((scaled - (centre - 0.5)) / (width - 1) + 0.5) * top), 0, top).astype(kind)


def _first(value: Any) -> float | None:
    """A number, or the first of several."""
    if value is None or value == "":
        return None
    return float(value[0] if hasattr(value, "__getitem__") else value)
