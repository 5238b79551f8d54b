"""Which files of a source are images, by their names; and why the others are not read."""

from __future__ import annotations

from tasks.images.extras import EXTRA, is_installed

_READ = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "bmp", "gif", "avif", "jxl", "jp2", "j2k", "jpf", "jpx",
    "j2c", "dng",  # a DNG may be a plain TIFF
})  # fmt: skip
_OF_EXTRA = {  # extensions -> what they stand for, and the library of the extra `formats` that reads it
    **dict.fromkeys(("heic", "heif", "hif"), ("a HEIF image", "pi_heif")),
    **dict.fromkeys(("cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "pef", "srw"), ("a camera's raw data", "rawpy")),
    "pdf": ("a PDF", "pypdfium2"),
    "dcm": ("a DICOM image", "pydicom"),
}
_NOT_READ = {"psd": "a Photoshop document", "psb": "a Photoshop document", "svg": "a drawing", "xcf": "a GIMP document"}


def is_image(path: str) -> bool:
    """Whether it is one that can be read on this machine."""
    extension = _extension(path)
    return extension in _READ or (extension in _OF_EXTRA and is_installed(_OF_EXTRA[extension][1]))


def why_skipped(path: str) -> str:
    """Why a file has no row; "" for an image."""
    if not path:
        return "a member without a name"
    if is_hidden(path):
        return "hidden"
    if is_image(path):
        return ""
    extension = _extension(path)
    if extension in _OF_EXTRA:
        return f"{_OF_EXTRA[extension][0]}, whose reader is not installed; {EXTRA}"
    if kind := _NOT_READ.get(extension):
        return f"{kind}, which is not read; convert it to TIFF or PNG"
    return "not an image by its extension"


def is_hidden(path: str) -> bool:
    """Whether a step of the path is hidden, or of macOS's own."""
    return any((step.startswith(".") and step not in (".", "..")) or step == "__MACOSX" for step in path.split("/"))


def _extension(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    return name.rpartition(".")[2] if "." in name else ""
