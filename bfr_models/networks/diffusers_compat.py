"""Imports diffusers' models, and as little of diffusers with them as they need.

diffusers imports torchvision (and transformers, which does the same) whenever it sees them. A CPU build
of torch beside a CUDA build of torchvision then breaks models that need neither. A healthy torchvision
is left alone.

With one block of a U-Net diffusers imports all of its transformers, and SciPy with them; with a decorator of torch's
compiler, the compiler; and it reads the lists of files of all installed packages. That is most of a worker's start, for
nothing that is used here.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_PACKAGES = ("autoencoders", "transformers", "unets")


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
        with _stand_ins():
            import_utils = importlib.import_module("diffusers.utils.import_utils")
        for flag in ("_torchvision_available", "_transformers_available"):
            setattr(import_utils, flag, False)
    with _stand_ins():
        return importlib.import_module(f"diffusers.{name}")


@contextmanager
def _stand_ins() -> Iterator[None]:
    """While they are imported: torch's compiler as its one decorator, which does nothing, and packages of models as
    folders, whose modules are imported one by one. Whoever needs the real ones finds them later. Packages are looked up
    by their own names, without a table of the distributions that they come from."""
    compiler = ModuleType("torch._dynamo")
    compiler.allow_in_graph = lambda function: function  # type: ignore[attr-defined]
    found = importlib.util.find_spec("diffusers")
    assert found is not None and found.submodule_search_locations is not None
    folders = [ModuleType(f"diffusers.models.{name}") for name in _PACKAGES]
    for folder in folders:
        folder.__path__ = [
            f"{place}/{folder.__name__.partition('.')[2].replace('.', '/')}"
            for place in found.submodule_search_locations
        ]
    made = {module.__name__: module for module in (compiler, *folders) if module.__name__ not in sys.modules}
    sys.modules.update(made)
    distributions = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = dict
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = distributions
        for name, module in made.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
