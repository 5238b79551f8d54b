"""Values of rows as JSON, which has no NaN and no dates."""

from __future__ import annotations

import json
from typing import Any


def encode_json(values: dict[str, Any], indent: int | None = None) -> bytes:
    """The values as JSON: null for NaN and infinity, text for what else JSON does not have."""
    try:
        text = json.dumps(values, allow_nan=False, default=str, indent=indent)
    except ValueError:  # NaN or infinity
        text = json.dumps(_finite(values), allow_nan=False, default=str, indent=indent)
    return text.encode()


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinity."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value - value != 0 else value
