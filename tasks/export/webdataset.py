"""Exported images as WebDataset: tar files whose members are one sample where they share a key, the part of their path
up to the first dot of the file name (webdataset.github.io). So a key has no dot, whatever the image was called; its own
name is in its JSON."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from tasks.storage.store import Store

MAX_BYTES = 256 * 2**20  # of a tar file, unless one image alone has more


def key_of(path: str) -> str:
    """The key for a path: `1931/a.b.jpg` -> `1931/a_b`."""
    folder, slash, name = path.rpartition("/")
    stem, dot, _ = name.rpartition(".")
    return folder + slash + (stem if stem and dot else name.lstrip(".") or "unnamed").replace(".", "_")


def extension_of(path: str) -> str:
    """The extension for a path: `1931/a.b.JPG` -> `.jpg`."""
    stem, dot, extension = path.rpartition("/")[2].rpartition(".")
    return f".{extension.lower()}" if stem and dot and extension else ".bin"


class TarFiles:
    """The tar files of one shard of a run: `<stem>-00.tar` and so on, each written once it is full."""

    def __init__(self, store: Store, stem: str) -> None:
        self._store, self._stem = store, stem
        self._number = self.written = self.bytes = 0
        self._begin()

    def add(self, files: Mapping[str, bytes]) -> str:
        """Adds a sample; returns the path of its tar file."""
        if self._sink.tell() and self._sink.tell() + sum(map(len, files.values())) > MAX_BYTES:
            self.close()
            self._number += 1
            self._begin()
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            self._tar.addfile(member, io.BytesIO(data))
        return self._path

    def close(self) -> None:
        """Writes the last one, if anything is in it."""
        is_empty = not self._sink.tell()
        self._tar.close()
        if not is_empty:
            data = self._sink.getvalue()
            self._store.write(self._path, data)
            self.written, self.bytes = self.written + 1, self.bytes + len(data)

    @property
    def _path(self) -> str:
        return f"{self._stem}-{self._number:02d}.tar"

    def _begin(self) -> None:
        self._sink = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._sink, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
