"""Which format a file has, by its first bytes; its name counts for nothing."""

from __future__ import annotations

_BRANDS = (
    ("AVIF", {b"avif", b"avis"}),
    ("HEIF", {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}),
    ("RAW", {b"crx "}),
)
_MAGICS = (
    ("JPEG", 0, b"\xff\xd8\xff"), ("PNG", 0, b"\x89PNG\r\n\x1a\n"), ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"), ("TIFF", 0, b"II+\0"), ("TIFF", 0, b"MM\0+"), ("GIF", 0, b"GIF87a"), ("GIF", 0, b"GIF89a"),
    ("BMP", 0, b"BM"),
    ("JPEG2000", 0, b"\0\0\0\x0cjP  \r\n\x87\n"), ("JPEG2000", 0, b"\xff\x4f\xff\x51"),
    ("JXL", 0, b"\0\0\0\x0cJXL \r\n\x87\n"), ("JXL", 0, b"\xff\x0a"), ("PDF", 0, b"%PDF-"), ("DICOM", 128, b"DICM"),
    ("RAW", 0, b"FUJIFILMCCD-RAW"), ("RAW", 0, b"IIU\0"), ("RAW", 0, b"IIRO"), ("RAW", 0, b"IIRS"), ("RAW", 0, b"MMOR"),
)  # fmt: skip


def kind_of(data: bytes) -> str | None:
    """The format by a file's first bytes; None for one that is not read here."""
    if data[:4] == b"RIFF":
        return "WEBP" if data[8:12] == b"WEBP" else None
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in (8, *range(16, min(int.from_bytes(data[:4]), 256), 4))}
        return next((kind for kind, known in _BRANDS if brands & known), None)
    return next((kind for kind, at, magic in _MAGICS if data[at : at + len(magic)] == magic), None)
