"""Which files of a source are images, by their names; and why the others are not read."""

from __future__ import annotations

from tasks.images.extras import EXTRA, is_installed
from tasks.images.kinds import kind_of

_READ = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp", "mpo", "jps", "png", "apng", "webp", "tif", "tiff",
    "btf", "tf8", "ptif", "bmp", "dib", "gif", "avif", "avifs", "jxl", "jp2", "j2k", "jpf", "jpx", "j2c", "jpc", "jph",
    "dng",  # may be a plain TIFF
})  # fmt: skip
_OF_EXTRA = {  # extensions -> what they stand for, and the library of the extra `formats` that reads it
    **dict.fromkeys(("heic", "heif", "hif", "heics", "heifs"), ("a HEIF image", "pi_heif")),
    **dict.fromkeys(
        (
            "3fr",
            "arw",
            "cr2",
            "cr3",
            "crw",
            "dcr",
            "erf",
            "fff",
            "gpr",
            "iiq",
            "kdc",
            "mef",
            "mos",
            "mrw",
            "nef",
            "nrw",
            "orf",
            "pef",
            "raf",
            "raw",
            "rw2",
            "rwl",
            "sr2",
            "srf",
            "srw",
            "x3f",
        ),
        ("a camera's raw data", "rawpy"),
    ),
    "pdf": ("a PDF", "pypdfium2"),
    "dcm": ("a DICOM image", "pydicom"),
}
_KNOWN_BY_START = ("JPEG", "PNG", "TIFF", "GIF", "WEBP")
_CONVERT = "which is not read; convert it to TIFF or PNG"
_NOT_READ = {  # extensions -> what they stand for, and what to do
    **dict.fromkeys(("psd", "psb"), f"a Photoshop document, {_CONVERT}"),
    "svg": f"a drawing, {_CONVERT}",
    "xcf": f"a GIMP document, {_CONVERT}",
    "arrow": "an Arrow file; write it as Parquet (of `datasets`: `Dataset.to_parquet`)",
    **dict.fromkeys(("parquet", "parq", "pq"), "Parquet by another name; let it end in .parquet, in small letters"),
    **dict.fromkeys(("zip", "tar", "tgz", "gz"), "an archive beside images, or in another; extract it"),
    **dict.fromkeys(("7z", "rar", "bz2", "tbz2", "xz", "txz", "zst"), "an archive that is not read; extract it"),
}
_METADATA = ("metadata.csv", "metadata.jsonl")  # of `datasets`' ImageFolder


def is_image(path: str) -> bool:
    """Whether it is one that can be read on this machine."""
    extension = _extension(path)
    return extension in _READ or (extension in _OF_EXTRA and is_installed(_OF_EXTRA[extension][1]))


def has_no_extension(path: str) -> bool:
    """Whether a name says nothing of what is in the file."""
    return bool(path) and not _extension(path) and not is_hidden(path)


def is_image_by_start(start: bytes) -> bool:
    """Whether a file is an image by its first bytes; a format that two bytes would tell is none of these."""
    return kind_of(start) in _KNOWN_BY_START


def why_skipped(path: str) -> str:
    """Why a file has no row; "" for an image."""
    if not path:
        return "a member without a name"
    if is_hidden(path):
        return "hidden"
    return "" if is_image(path) else _why_not_read(path)


def _why_not_read(path: str) -> str:
    extension = _extension(path)
    if extension in _OF_EXTRA:
        return f"{_OF_EXTRA[extension][0]}, whose reader is not installed; {EXTRA}"
    if path.rpartition("/")[2] in _METADATA:
        return "the columns of an ImageFolder; write it as Parquet by `datasets` to have them beside the images"
    return _NOT_READ.get(extension, "not an image by its extension")


def is_hidden(path: str) -> bool:
    """Whether a step of the path is hidden, or of macOS's own."""
    return any((step.startswith(".") and step not in (".", "..")) or step == "__MACOSX" for step in path.split("/"))


def _extension(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    return name.rpartition(".")[2] if "." in name else ""
