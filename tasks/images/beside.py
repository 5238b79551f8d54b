"""What an image file has beside the pixels of its image."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Beside:
    """Metadata as found in a file, turned to what holds for the upright image; and what was left out."""

    icc: bytes | None = None
    exif: bytes | None = None
    """A TIFF structure behind "Exif\\0\\0", with the orientation reset to upright and without a thumbnail."""
    xmp: bytes | None = None
    iptc: bytes | None = None
    """Records of IIM, as in Photoshop's resource 0x0404."""
    dpi: tuple[float, float] | None = None
    comments: list[bytes] = field(default_factory=list)
    """Of a JPEG or a GIF."""
    texts: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Kind and body of a PNG's text chunks, byte for byte."""
    colour: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Kind and body of a PNG's chunks that say what its levels mean: gAMA, cHRM, sRGB, cICP and others."""
    n_frames: int = 1
    """Frames, pages or pictures of equal rank, of which this is the first; at least 1."""
    notes: list[str] = field(default_factory=list)
    """What else was in the file, or was left out of it, each in a few words."""

    def left_out(self, what: str) -> None:
        """Notes something that the file has and its output will not."""
        if (note := f"{what} left out") not in self.notes:
            self.notes.append(note)
