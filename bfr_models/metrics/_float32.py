"""Runs a metric's networks without gradients and in float32, whatever precision the method uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def float32_inference(device: torch.device) -> Iterator[None]:
    """No autocast, and no TF32 in convolutions: its 1e-3 of noise would be part of the score."""
    cudnn = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False), cudnn:
        yield
