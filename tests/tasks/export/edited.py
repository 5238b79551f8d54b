"""Images of every kind with a patch in the middle, as a run returns them, and the files that are made of them."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

from tasks.export.canvas import Canvas, with_restored
from tasks.export.encode import write_like
from tasks.export.notes import Notes
from tasks.export.xmp import Event
from tasks.images.codec import decode, encode

EVENT = Event("bfr-pipeline 1", "2026-11-01T00:00:00+00:00", "method: difface; faces: 1 of 2 restored & <kept>")

needs_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs ExifTool")


def restored(data: bytes) -> bytes:
    """What a run makes of an image: a lossless PNG, upright, with other pixels in the middle."""
    before = decode(data)
    pixels = before.pixels.copy()
    height, width = pixels.shape[:2]
    patch = pixels[height // 4 : height // 2, width // 4 : width // 2]
    patch[:] = 255 - patch // 2
    return encode(pixels, "png", like=before)


def canvas_of(data: bytes, notes: Notes | None = None) -> Canvas:
    canvas = with_restored(data, restored(data), None, Notes() if notes is None else notes)
    assert canvas is not None
    return canvas


def exported(data: bytes, notes: Notes | None = None) -> bytes:
    """The file with the patch in it."""
    notes = Notes() if notes is None else notes
    return write_like([data], {0: canvas_of(data, notes)}, EVENT, notes)


def difference(data: bytes, out: bytes) -> int:
    """The largest difference between the exported file's pixels and those that were wanted."""
    return int(np.abs(decode(out).pixels.astype(int) - decode(restored(data)).pixels).max())


def exiftool(path: object, *options: str) -> dict[str, object]:
    """The tags of a file, as ExifTool reads them, but for those of the file system."""
    import json

    command = ["exiftool", "-j", "-a", "-G1", "-n", *options, str(path)]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    ours = ("SourceFile", "ExifTool:", "System:")
    return {name: value for name, value in found.items() if not name.startswith(ours)}
