"""What the reader of an exported image has to know: it is collected while the image is made, for its sidecar."""

from __future__ import annotations


class Notes(list[str]):
    """Sentences, each once."""

    def add(self, note: str) -> None:
        if note not in self:
            self.append(note)
