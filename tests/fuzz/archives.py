"""The archive readers: whatever a zip or tar says, its members become rows, or the reason is said."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator

import atheris

with atheris.instrument_imports(include=["tasks", "zipfile", "tarfile", "gzip"]):
    from tasks.pack_pictures import pack_pictures
    from tasks.storage.store import Store

from tests.fuzz.harness import fuzz

_ENDINGS = ("zip", "tar", "tar.gz")


def check(data: bytes) -> None:
    """The first byte says which kind of archive the others are."""
    if not data:
        return
    name = f"a.{_ENDINGS[data[0] % len(_ENDINGS)]}"
    Store("memory://in").write(name, data[1:])
    pack_pictures(f"memory://in/{name}", "memory://out", overwrite=True)


def _seeds() -> Iterator[bytes]:
    from tests.zoo import odd_tiffs, others

    images = {animal.name.replace(" ", ".") + ".jpg": animal.data for animal in [*others(), *list(odd_tiffs())[:4]]}
    texts = {name[:-4] + kind: b'{"a": 1}' for name, kind in zip(images, (".json", ".txt", ".cls") * 9, strict=False)}
    files = images | texts | {"__MACOSX/a.jpg": b"a", "../../up.png": b"b", "x" * 200 + "/long.png": b"c"}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(file := io.BytesIO(), "w", method) as zipped:
            for name, data in files.items():
                zipped.writestr(name, data[:2000])
        yield b"\0" + file.getvalue()
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(fileobj=(file := io.BytesIO()), mode="w", format=form) as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name if form != tarfile.USTAR_FORMAT else name[:90])
                member.size = len(data[:2000])
                tar.addfile(member, io.BytesIO(data[:2000]))
            for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
                odd = tarfile.TarInfo(f"odd{kind.decode()}.png")
                odd.type, odd.linkname = kind, next(iter(files))
                tar.addfile(odd)
        yield b"\1" + file.getvalue()[:60_000]
        yield b"\2" + gzip.compress(file.getvalue())


if __name__ == "__main__":
    fuzz(check, _seeds)
