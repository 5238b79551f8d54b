"""facexlib's ArcFace checkpoint as the parameters of our network.

The norms' batch counters are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfr_models.conversion.strict import State, exactly, on_meta, tensors
from bfr_models.networks.arcface import ArcFace


def convert_arcface(state: Mapping[str, Any]) -> State:
    """`recognition_arcface_ir_se50.pth` as the parameters of `ArcFace`. UsageError lists what differs."""
    kept = {name: tensor for name, tensor in tensors(state).items() if not name.endswith(".num_batches_tracked")}
    return exactly(kept, on_meta(ArcFace))
