"""Imports diffusers' models beside a torchvision with compiled operators that do not load.

diffusers imports torchvision (and transformers, which does the same) whenever it sees them. A CPU build
of torch beside a CUDA build of torchvision then breaks models that need neither. A healthy torchvision
is left alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType


def torchvision_is_broken() -> bool:
    """Whether a torchvision is installed that does not import."""
    if importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
    except (ImportError, OSError, RuntimeError):  # the operators of _C.so are missing
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half-imported, and nothing should find it
        return True
    return False


def diffusers_module(name: str) -> ModuleType:
    """`diffusers.<name>`, imported so that it works with any torchvision or none."""
    if torchvision_is_broken():
        import_utils = importlib.import_module("diffusers.utils.import_utils")
        for flag in ("_torchvision_available", "_transformers_available"):
            setattr(import_utils, flag, False)
    return importlib.import_module(f"diffusers.{name}")
