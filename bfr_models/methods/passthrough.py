"""The baseline: a face resized and nothing else. Also the tests' stand-in for a method."""

from __future__ import annotations

from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.types import FaceBatch


class Passthrough:
    """Bicubic resize to the preset's size; a face of that size is left as it is."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self.size = resolved.preset.size

    def restore(self, batch: FaceBatch) -> FaceBatch:
        """(B, 3, H, W) in [-1, 1] -> (B, 3, size, size)."""
        resized = resize(batch.images, self.size)
        return batch if resized is batch.images else batch.with_images(resized.clamp(-1, 1))
