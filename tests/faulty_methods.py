"""A method that misbehaves on rows whose ids ask for it. It is installed as users' own methods are."""

from __future__ import annotations

import os
import signal
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bfr_models.methods.baseline_presets import ESTIMATOR
from bfr_models.methods.preset import Preset
from bfr_models.pixels import resize
from bfr_models.registry import MethodSpec, ResolvedMethod
from bfr_models.types import FaceBatch

SIZE = 96
WEIGHTS = "faulty-estimator"  # of the preset `trained`


@dataclass(frozen=True)
class FaultyOptions:
    seconds: float = 0.0  # per call
    pids: str = ""  # a folder where each process that loads the method leaves its id
    load_error: str = ""
    ill: str = ""  # a file; while it is there, rows whose ids say `heals` fail
    hold: str = ""  # a file; while it is there, rows whose ids say `waits` are not done


class Faulty:
    """Mirrors faces, unless a row's id says `raises`, `nan`, `shrinks`, `kills`, `hangs`, `spins`, `eats`,
    `heals`, `waits` or `warns`."""

    size = SIZE

    def __init__(self, resolved: ResolvedMethod, device: str) -> None:
        self._options: FaultyOptions = resolved.options
        if self._options.load_error:
            raise RuntimeError(self._options.load_error)
        if self._options.pids:
            Path(self._options.pids, str(os.getpid())).touch()

    def restore(self, batch: FaceBatch) -> FaceBatch:
        time.sleep(self._options.seconds)
        if any("warns" in name for name in batch.ids):
            warnings.warn("the fan is loud", stacklevel=1)
        if any("raises" in name for name in batch.ids):
            raise RuntimeError("not this face")
        if Path(self._options.ill or "/nowhere").exists() and any("heals" in name for name in batch.ids):
            raise RuntimeError("not yet")
        while Path(self._options.hold or "/nowhere").exists() and any("waits" in name for name in batch.ids):
            time.sleep(0.05)
        if any("hangs" in name for name in batch.ids):
            time.sleep(10**6)
        while any("spins" in name for name in batch.ids):  # in PyTorch's own code
            torch.ones(512, 512) @ torch.ones(512, 512)
        if any("eats" in name for name in batch.ids):
            raise MemoryError("all of it")
        if any("kills" in name for name in batch.ids):
            os.kill(os.getpid(), signal.SIGKILL)
        images = batch.images.flip(-1)
        images[torch.tensor(["nan" in name for name in batch.ids])] = torch.nan
        if any("shrinks" in name for name in batch.ids):
            images = resize(images, SIZE // 2)
        return batch.with_images(images)


SPEC = MethodSpec(
    "faulty",
    "tests.faulty_methods:Faulty",
    "-",
    "misbehaves on demand",
    (
        Preset("only", SIZE, "Apache-2.0", FaultyOptions()),
        replace(  # good, but with weights of the test's own
            ESTIMATOR[0],
            name="trained",
            weights={"estimator": WEIGHTS},
            target="bfr_models.methods.estimator:Estimator",
        ),
    ),
)
