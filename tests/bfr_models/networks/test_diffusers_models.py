"""The U-Net builds and runs with every torchvision there is: a broken one, none, a healthy one.

Each case is a Python of its own, with the packages first on its path: what is imported once stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

UNET = """
import sys
import torch
from bfr_models.networks.configs import UNetConfig
from bfr_models.networks.unet import UNet

config = UNetConfig(sample_size=16, channels=(8, 16), attention_levels=(1,), head_dim=8, norm_groups=8)
for _ in range(2):  # a second network finds the same machine
    eps = UNet(config)(torch.zeros(2, 3, 16, 16), torch.tensor([0, 500]))
    assert eps.shape == (2, 3, 16, 16)
from diffusers.utils import is_torchvision_available
print(is_torchvision_available(), [m for m in sys.modules if m.split(".")[0] == "torchvision"])
"""
BROKEN = """
from torchvision import _meta_registrations
raise RuntimeError("operator torchvision::nms does not exist")
"""
MODELS_ON_DEMAND = """
def __getattr__(name):
    from torchvision import transforms
"""


def package(folder: Path, name: str, **modules: str) -> None:
    """A package with the metadata that diffusers looks for."""
    (folder / name).mkdir()
    for module, source in modules.items():
        (folder / name / f"{module}.py").write_text(source)
    metadata = folder / f"{name}-9.9.9.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9.9\n")


def run(code: str, path: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_broken_torchvision_is_stepped_around(tmp_path: Path) -> None:
    """And so is transformers, whose models import torchvision wherever they see one."""
    package(tmp_path, "torchvision", __init__=BROKEN, _meta_registrations="", transforms="")
    package(tmp_path, "transformers", __init__=MODELS_ON_DEMAND)
    assert run(UNET, tmp_path) == "False []"


def test_no_torchvision_is_needed(tmp_path: Path) -> None:
    assert run("import sys; sys.modules['torchvision'] = None\n" + UNET, tmp_path) == "False ['torchvision']"


def test_a_healthy_torchvision_is_left_alone(tmp_path: Path) -> None:
    package(tmp_path, "torchvision", __init__="", transforms="")
    assert run(UNET, tmp_path) == "True ['torchvision']"


def test_the_files_of_all_packages_are_not_read(tmp_path: Path) -> None:
    """For a table that only names them in another way; it can be had afterwards."""
    table = "import importlib.metadata as m; m.packages_distributions = lambda: print('read')\n"
    healthy = run("print('imported')\n" + table + UNET + "m.packages_distributions()", tmp_path)
    assert [line for line in healthy.splitlines() if line in ("imported", "read")] == ["imported", "read"]
