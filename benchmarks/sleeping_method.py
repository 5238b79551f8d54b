"""A method that sleeps: an accelerator of known speed. Installed for a benchmark as users' own methods are."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from bfr_models.methods.baseline_presets import PASSTHROUGH
from bfr_models.registry import MethodSpec, ResolvedMethod
from bfr_models.types import FaceBatch


@dataclass(frozen=True)
class SleepingOptions:
    seconds: float = 0.0  # a face


class Sleeping:
    """Gives faces of its size back as they are, after a while."""

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self.size, self._seconds = resolved.preset.size, resolved.options.seconds

    def restore(self, batch: FaceBatch) -> FaceBatch:
        time.sleep(self._seconds * len(batch))
        return batch


SPEC = MethodSpec(
    "sleeping",
    "sleeping_method:Sleeping",
    "-",
    "an accelerator of known speed",
    tuple(replace(preset, options=SleepingOptions()) for preset in PASSTHROUGH),
)


def install(folder: Path) -> dict[str, str]:
    """The environment of processes that have the method."""
    info = folder / "sleeping_method-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sleeping-method\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[bfr.methods]\nsleeping = sleeping_method:SPEC\n")
    paths = (str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
