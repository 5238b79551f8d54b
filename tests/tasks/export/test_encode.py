"""An exported image has the new pixels, and is otherwise what its original was."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tasks.export.canvas import with_restored
from tasks.export.encode import takes_pixels
from tasks.export.notes import Notes
from tasks.images.codec import decode, encode
from tests.tasks.export.edited import exiftool, exported, needs_exiftool, restored
from tests.tasks.images.samples import GREY, SRGB, deep_file, gradient, opened, saved

RGB = Image.fromarray(np.kron(gradient(), np.ones((4, 4, 1), np.uint8)))
LAB = ImageCms.profileToProfile(RGB, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
DEEP = np.kron(gradient(), np.ones((4, 4, 1))).astype(np.uint16) * 200 + 77
ALPHA = Image.linear_gradient("L").resize(RGB.size)
EXACT = {
    "png-rgb": saved(RGB, "PNG", dpi=(300, 300), icc_profile=SRGB),
    "png-grey": saved(RGB.convert("L"), "PNG", icc_profile=GREY),
    "png-alpha": saved(Image.merge("RGBA", (*RGB.split(), ALPHA)), "PNG"),
    "png-grey-alpha": saved(Image.merge("LA", (RGB.convert("L"), ALPHA)), "PNG"),
    "png-16": deep_file(DEEP, ".png"),
    "png-16-grey": deep_file(np.ascontiguousarray(DEEP[..., 1]), ".png"),
    "png-16-alpha": deep_file(np.concatenate([DEEP, DEEP[..., :1]], axis=2), ".png"),
    "tiff": saved(RGB, "TIFF", dpi=(300, 150)),
    "tiff-lzw": saved(RGB, "TIFF", compression="tiff_lzw"),
    "tiff-deflate": saved(RGB, "TIFF", compression="tiff_adobe_deflate"),
    "tiff-packbits": saved(RGB, "TIFF", compression="packbits"),
    "tiff-grey": saved(RGB.convert("L"), "TIFF", compression="tiff_lzw"),
    "tiff-alpha": saved(Image.merge("RGBA", (*RGB.split(), ALPHA)), "TIFF", compression="tiff_lzw"),
    "tiff-cmyk": saved(RGB.convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "tiff-16": deep_file(DEEP, ".tif"),
    "tiff-16-big-endian": saved(Image.fromarray(DEEP[..., 0].astype(">u2")), "TIFF"),
    "webp": saved(RGB, "WEBP", lossless=True),
    "bmp": saved(RGB, "BMP", dpi=(300, 300)),
}


@pytest.mark.parametrize("kind", EXACT)
def test_lossless_formats_have_the_very_pixels_in_their_own_mode_and_depth(kind: str) -> None:
    data, notes = EXACT[kind], Notes()
    out = exported(data, notes)
    before, after, wanted = decode(data), decode(out), decode(restored(data))
    # CMYK has its own way from and to RGB, exact for what is naively converted.
    assert np.array_equal(after.pixels, wanted.pixels)
    assert (after.format, after.bit_depth, after.dpi, after.icc) == (
        before.format, before.bit_depth, before.dpi, before.icc,
    )  # fmt: skip
    assert opened(out).mode == opened(data).mode
    assert opened(out).info.get("compression") == opened(data).info.get("compression")
    if before.deep is not None:
        assert np.array_equal(after.deep, wanted.deep)
    if before.alpha is not None:
        assert np.array_equal(after.alpha, before.alpha)
    assert not notes or kind == "bmp"


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2, "progressive": True}])
def test_a_jpeg_keeps_its_tables_and_sampling_and_hardly_changes_elsewhere(options: dict[str, int]) -> None:
    smooth = RGB.resize((256, 192), Image.Resampling.BICUBIC)
    data = saved(smooth, "JPEG", quality=83, **options)
    out = exported(data)
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(out))
    assert (after.quantization, after.layer, after.info.get("progressive")) == (
        before.quantization, before.layer, before.info.get("progressive"),
    )  # fmt: skip
    a, b = np.asarray(before.convert("RGB")).astype(int), np.asarray(after.convert("RGB")).astype(int)
    far = np.ones(a.shape[:2], bool)
    far[32:112, 48:144] = False  # the patch and the blocks around it
    assert np.abs(a - b)[far].mean() < 0.1
    assert np.abs(b - decode(restored(data)).pixels).mean() < 2


@pytest.mark.parametrize("mode", ["L", "CMYK", "stored as RGB"])
def test_other_jpegs_stay_what_they_are(mode: str) -> None:
    data = saved(RGB, "JPEG", keep_rgb=True) if mode == "stored as RGB" else saved(RGB.convert(mode), "JPEG")
    out = exported(data)
    assert opened(out).mode == opened(data).mode
    assert opened(out).info.get("adobe_transform") == opened(data).info.get("adobe_transform")
    assert np.abs(decode(out).pixels.astype(int) - decode(restored(data)).pixels).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_stay_turned_as_they_are_stored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for data in (saved(RGB, "PNG", exif=exif), saved(RGB, "TIFF", tiffinfo={0x0112: orientation})):
        out = exported(data)
        with Image.open(io.BytesIO(out)) as stored:
            width = stored.tag_v2[256] if stored.format == "TIFF" else stored.width  # type: ignore[attr-defined]
            assert (width, stored.getexif()[0x0112]) == (RGB.width, orientation)
        assert np.array_equal(decode(out).pixels, decode(restored(data)).pixels)


@pytest.mark.parametrize("mode", ["P", "1"])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_a_palette_and_two_levels_become_8_bits_with_a_note(mode: str, form: str) -> None:
    data, notes = saved(RGB.convert(mode), form), Notes()
    assert np.array_equal(decode(exported(data, notes)).pixels, decode(restored(data)).pixels)
    assert any("cannot hold the new pixels" in note for note in notes)


def test_what_cannot_take_pixels_is_known() -> None:
    frames = {"save_all": True, "append_images": [RGB.rotate(90)]}
    assert not takes_pixels(saved(RGB.convert("P"), "GIF"))
    assert not takes_pixels(saved(RGB, "WEBP", **frames)) and not takes_pixels(saved(RGB, "PNG", **frames))
    assert takes_pixels(saved(RGB, "WEBP")) and takes_pixels(saved(RGB, "TIFF", **frames))


def test_the_same_pixels_are_no_change() -> None:
    data = saved(RGB, "JPEG")
    before = decode(data)
    assert with_restored(data, encode(before.pixels, "png", like=before), None, Notes()) is None


def test_a_lossy_result_counts_only_where_faces_were_pasted() -> None:
    data = saved(RGB, "PNG")
    lossy = encode(decode(restored(data)).pixels, "jpeg", 60)

    def region(shape: tuple[int, ...]) -> np.ndarray:
        mask = np.zeros(shape, bool)
        mask[20:60, 30:70] = True
        return mask

    canvas = with_restored(data, lossy, region, Notes())
    assert canvas is not None
    differs = (canvas.samples != np.asarray(RGB)).any(axis=-1)
    assert differs.any() and not differs[~region(differs.shape)].any()


def test_an_image_of_another_size_takes_the_place_of_the_whole() -> None:
    notes = Notes()
    data = saved(Image.merge("RGBA", (*RGB.split(), ALPHA)), "PNG")
    canvas = with_restored(data, saved(RGB.resize((64, 64)), "PNG"), None, notes)
    assert canvas is not None and canvas.samples.shape == (64, 64, 4)
    assert list(notes) == ["the size was 128 x 96 px"]
    deep = with_restored(deep_file(DEEP, ".png"), saved(RGB.resize((64, 64)), "PNG"), None, Notes())
    assert deep is not None and deep.samples.dtype == np.uint16 and deep.samples.max() > 255 * 200


@needs_exiftool
@pytest.mark.parametrize("form", ["jpg", "tif", "png", "webp"])
def test_exiftool_reads_the_same_tags_but_for_the_mark(form: str, tmp_path: Path) -> None:
    import subprocess

    name = {"jpg": "JPEG", "tif": "TIFF"}.get(form, form.upper())
    path = tmp_path / f"a.{form}"
    path.write_bytes(
        saved(RGB, name, dpi=(300, 300), icc_profile=SRGB, **({"lossless": True} if form == "webp" else {}))
    )
    thumbnail = tmp_path / "small.jpg"
    thumbnail.write_bytes(saved(RGB.resize((40, 30)), "JPEG"))
    tags = [
        "-EXIF:Artist=Ann", "-EXIF:DateTimeOriginal=1931:02:03 04:05:06", "-GPSLatitude=50.5", "-GPSLatitudeRef=N",
        "-XMP-dc:Title=Titel é", "-XMP-xmpMM:HistoryAction=created", "-XMP-iptcExt:DigitalSourceType=print",
        f"-IFD1:ThumbnailImage<={thumbnail}", f"-Photoshop:PhotoshopThumbnail<={thumbnail}", "-IPTC:Keywords=portrait",
    ]  # fmt: skip
    subprocess.run(["exiftool", "-q", "-q", "-m", "-overwrite_original", *tags, str(path)], check=True)
    before = exiftool(path)
    path.write_bytes(exported(path.read_bytes()))
    after = exiftool(path)
    assert not any("Warning" in name or "Error" in name for name in after)
    assert after.pop("XMP-iptcExt:DigitalSourceType").endswith("/compositeWithTrainedAlgorithmicMedia")  # type: ignore[attr-defined]
    assert after.pop("XMP-xmpMM:HistoryAction") == ["created", "edited"]
    mark = {"XMP-xmpMM:HistoryWhen", "XMP-xmpMM:HistorySoftwareAgent", "XMP-xmpMM:HistoryParameters"}
    assert mark <= after.keys() and "&" in str(after["XMP-xmpMM:HistoryParameters"])
    stored = (
        "File:",
        "IFD0:Strip",
        "IFD0:RowsPerStrip",
        "IFD1:",
        "Photoshop:PhotoshopThumbnail",
        "XMP-",
        "IFD0:Predictor",
    )

    def told(found: dict[str, object]) -> dict[str, object]:
        return {tag: value for tag, value in found.items() if not tag.startswith(stored)}

    assert told(after) == told(before)
    assert after["XMP-dc:Title"] == "Titel é"
    if form == "jpg":
        assert "IFD1:ThumbnailImage" in before and not any("Thumbnail" in tag for tag in after)
