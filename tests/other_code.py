"""Nodes of a Ray cluster on this machine whose processes run another version of this program, or lack it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support import ROOT

_REDIRECT = """
import importlib.util, sys
from pathlib import Path

class Elsewhere:
    def find_spec(self, name, path=None, target=None):
        if name not in ("tasks", "bfr_models", "flows"):
            return None
        folder = Path({folder!r}) / name
        if not folder.exists():
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )

sys.meta_path.insert(0, Elsewhere())
"""
_NEGATIVES = """

_right = to_uint8


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    return 255 - _right(images)
"""


def other_version(folder: Path) -> Path:
    """A copy of this program that restores every picture as its negative."""
    for package in ("tasks", "bfr_models"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.safetensors"))
    with (folder / "bfr_models" / "pixels.py").open("a") as file:
        file.write(_NEGATIVES)
    return folder


def redirect(site: Path, folder: Path) -> str:
    """Fills `site`, which a node must have first in its PYTHONPATH for its processes to find this program in `folder`
    alone. The variable by itself is not enough: Ray gives workers the driver's folders, which another machine lacks."""
    site.mkdir()
    (site / "sitecustomize.py").write_text(_REDIRECT.format(folder=str(folder)))
    return str(site)
