"""Which device a network runs on."""

from __future__ import annotations


def local_device() -> str:
    """Where this process itself would run a method."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
