"""The networks need neither torchvision, which may be built for another torch, nor diffusers, which imports it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NETWORKS = """
import sys
import torch
from bfr_models.networks.configs import UNetConfig, VQGANConfig
from bfr_models.networks.unet import UNet
from bfr_models.networks.vqgan import VQGAN

x = torch.zeros(1, 3, 16, 16)
UNet(UNetConfig(sample_size=16, channels=(8, 16), norm_groups=8, head_dim=8))(x, torch.tensor([0]))
VQGAN(VQGANConfig(channels=(8, 8), codes=4, norm_groups=8))(x)
print([name for name in ("diffusers", "torchvision", "transformers") if name in sys.modules])
"""


def test_a_broken_torchvision_is_never_asked(tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", NETWORKS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
