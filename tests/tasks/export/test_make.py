"""What a picture is exported as where its own format cannot take new pixels."""

from __future__ import annotations

import io
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image, ImageCms

from tasks.export import make as making
from tasks.export.make import make
from tasks.export.pictures import Picture
from tasks.export.rows import ExportRow, ExportRun
from tasks.images.codec import decode
from tasks.storage.store import Store
from tests.tasks.export.edited import restored

P3_LIKE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LEVELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def run_of_faces() -> ExportRun:
    method = {"name": "difface", "preset": "face128", "fingerprint": "ab"}
    arguments = {"input": "faces", "format": "png", "detector": "dlib"}
    record: Any = {"arguments": arguments, "method": method, "finished": "2026-11-01T00:00:00+00:00"}
    return ExportRun(Store("memory://no-run"), record, "settings", [], cast(Any, None))


def picture_of(data: bytes) -> Picture:
    faces = [{"outcome": "restored", "landmarks": None}]
    return Picture([ExportRow("a", "a", data, "", restored(data), {"id": "a", "faces": faces})])


def turned(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A file on its side, with a profile."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "A maker"
    image = Image.fromarray(LEVELS).convert(mode)
    image.save(file := io.BytesIO(), kind, exif=exif.tobytes(), icc_profile=P3_LIKE, quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["AVIF", "WEBP"])
def test_a_png_beside_a_file_is_upright_and_has_its_profile(kind: str) -> None:
    frames = {"save_all": True, "append_images": [Image.fromarray(255 - LEVELS)]} if kind == "WEBP" else {}
    data = turned(kind, **frames)
    made = make(run_of_faces(), picture_of(data))
    assert made.data == data
    beside = made.beside[".png"]
    assert np.array_equal(decode(beside).pixels, decode(restored(data)).pixels)
    with Image.open(io.BytesIO(beside)) as image:
        assert image.info["icc_profile"] == P3_LIKE
        assert (image.getexif().get(0x0112, 1), image.getexif()[0x010F]) == (1, "A maker")
    assert b"compositeWithTrainedAlgorithmicMedia" in beside


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_that_cannot_be_written_again_has_a_png_beside_it(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> bytes:
        raise ValueError("no such tables")

    monkeypatch.setattr(making, "write_like", fails)
    data = turned("JPEG", mode)
    made = make(run_of_faces(), picture_of(data))
    assert made.data == data and any("no such tables" in note for note in made.notes)
    assert np.array_equal(decode(made.beside[".png"]).pixels, decode(restored(data)).pixels)
