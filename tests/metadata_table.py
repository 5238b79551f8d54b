"""What becomes of metadata, by ExifTool: `python -m tests.metadata_table` prints the table of docs/images.md.

ExifTool writes the same tags into a file of each format; ours reads it and writes it again; ExifTool looks once more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
from PIL import Image, ImageCms

from tasks.images.codec import Format, decode, encode, notes_on
from tests.zoo import FLAT, pillow

OUTPUTS: tuple[Format, ...] = ("png", "jpeg", "webp")
KINDS = ("EXIF", "XMP", "IPTC", "ICC", "resolution", "comment")
_WRITTEN = {
    "EXIF": ("-IFD0:Artist=A. Painter", "-ExifIFD:UserComment=of 1931", "-GPS:GPSLatitude=50.7"),
    "XMP": ("-XMP-dc:Title=A title",),
    "IPTC": ("-IPTC:City=Bonn",),
    "comment": ("-File:Comment=a comment",),
    "resolution": ("-IFD0:XResolution=300", "-IFD0:YResolution=300", "-IFD0:ResolutionUnit=inches"),
}
_SEEN = {  # kind -> what ExifTool calls it, in any of the formats
    "EXIF": ("IFD0:Artist", "ExifIFD:UserComment", "GPS:GPSLatitude"),
    "XMP": ("XMP-dc:Title",),
    "IPTC": ("IPTC:City",),
    "ICC": ("ICC-header:ProfileClass",),
    "comment": ("File:Comment", "PNG:Comment", "GIF:Comment"),
    "resolution": ("PNG-pHYs:PixelsPerUnitX", "JFIF:XResolution", "IFD0:XResolution", "Jpeg2000:CaptureXResolution"),
}
_SAID = {
    "EXIF": "EXIF",
    "XMP": "XMP",
    "IPTC": "IPTC",
    "ICC": "profile",
    "resolution": "resolution",
    "comment": "comment",
}


def bases() -> Iterator[tuple[str, bytes]]:
    """A file of each format that ExifTool writes to or can look into, with a profile where the writer knows them."""
    image = Image.fromarray(FLAT)
    icc = {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    yield "jpg", pillow(image, "JPEG", **icc)
    yield "png", pillow(image, "PNG", **icc)
    yield "tif", pillow(image, "TIFF", **icc)
    yield "webp", pillow(image, "WEBP", lossless=True, **icc)
    yield "gif", pillow(image.quantize(32), "GIF", comment=b"a comment")
    yield "avif", pillow(image, "AVIF", **icc)
    yield "jxl", bytes(imagecodecs.jpegxl_encode(FLAT, lossless=True, usecontainer=True))
    yield "jp2", bytes(imagecodecs.jpeg2k_encode(FLAT, level=0, codecformat="jp2", reversible=True))


def exiftool(*arguments: str | Path) -> bytes:
    return subprocess.run(["exiftool", *map(str, arguments)], check=False, capture_output=True).stdout


def kinds_in(folder: str) -> dict[str, dict[str, list[str]]]:
    """The kinds of metadata that ExifTool finds in each file of a folder, with what they say."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for found in json.loads(exiftool("-j", "-G1", "-n", folder)):
        seen = {kind: [str(found[name]) for name in names if name in found] for kind, names in _SEEN.items()}
        kinds[Path(found["SourceFile"]).name] = {kind: values for kind, values in seen.items() if values}
    return kinds


def outcomes() -> dict[str, dict[str, str]]:
    """Format -> kind of metadata -> what became of it in each output: `kept`, `said`, or `LOST`."""
    said: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for ending, data in bases():
            Path(folder, f"a.{ending}").write_bytes(data)
        exiftool("-overwrite_original", "-q", *(tag for tags in _WRITTEN.values() for tag in tags), folder)
        for path in list(Path(folder).iterdir()):
            image = decode(path.read_bytes())
            for fmt in OUTPUTS:
                made = Path(folder, f"{path.name}.{fmt}")
                made.write_bytes(encode(image.pixels, fmt, like=image))
                said[made.name] = notes_on(image, fmt, image.pixels)
        found = kinds_in(folder)
    return {ending: {kind: _row(kind, f"a.{ending}", found, said) for kind in KINDS} for ending, _ in bases()}


def _row(kind: str, name: str, found: dict[str, dict[str, list[str]]], said: dict[str, str]) -> str:
    if kind not in found[name]:
        return "-"
    words = []
    for fmt in OUTPUTS:
        after = found[made := f"{name}.{fmt}"].get(kind, [])
        kept = after and (kind in ("resolution", "comment") or set(found[name][kind]) <= set(after))
        words.append("kept" if kept else "said" if _SAID[kind] in said[made] else "LOST")
    return " / ".join(words) if len(set(words)) > 1 else words[0]


def as_markdown(table: dict[str, dict[str, str]]) -> str:
    lines = [f"| from | {' | '.join(KINDS)} |", "|---" * (len(KINDS) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(row.values())} |" for name, row in table.items())])


if __name__ == "__main__":
    sys.stdout.write(as_markdown(outcomes()) + "\n")
