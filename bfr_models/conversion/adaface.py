"""AdaFace's checkpoint as the parameters of our network.

The training head, one vector per person, and the norms' batch counters are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfr_models.conversion.strict import State, exactly, on_meta, tensors
from bfr_models.networks.adaface import AdaFace


def convert_adaface(state: Mapping[str, Any]) -> State:
    """`adaface_ir50_ms1mv2.ckpt`, as Lightning names its tensors, as the parameters of `AdaFace`. UsageError lists what
    differs."""
    kept = {
        name.removeprefix("model."): tensor
        for name, tensor in tensors(state).items()
        if not name.startswith("head.") and not name.endswith(".num_batches_tracked")
    }
    return exactly(kept, on_meta(AdaFace))
