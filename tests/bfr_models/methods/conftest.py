"""DifFace's 512 px and inpainting presets with tiny networks of random weights in the place of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bfr_models.methods.difface_presets import DIFFACE
from bfr_models.networks.configs import LaMaConfig, SwinIRConfig, UNetConfig
from bfr_models.networks.lama import LaMa
from bfr_models.networks.swinir import SwinIR
from bfr_models.networks.unet import UNet
from bfr_models.registry import ResolvedMethod, load_method, resolve_method
from bfr_models.types import Restorer
from bfr_models.weights.tensors import load_weights, parameters_of, save_weights

SIZE = 16
PRIOR = UNetConfig(SIZE, (16, 16), (1, 2), (1,), head_dim=8, norm_groups=8, learn_sigma=True)
ESTIMATOR = SwinIRConfig(
    unshuffle=2, embed_dim=12, depths=(2,), num_heads=3, window_size=4, num_feat=8, drop_path=0.0, img_size=8
)
INPAINTER = LaMaConfig(channels=4, num_downsamples=1, num_blocks=1)


@dataclass(frozen=True)
class Tiny:
    """A method with random weights, and its networks once more, in float64."""

    resolved: ResolvedMethod
    estimator: nn.Module
    prior: nn.Module

    def load(self) -> Restorer:
        return load_method(self.resolved)

    @torch.inference_mode()
    def output(self, x: Tensor, t: int) -> Any:
        """(B, 6, H, W) of the prior."""
        return self.prior(x, torch.full((len(x),), t))


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Tiny]]:
    """(preset name, options) -> the preset's method with tiny networks."""
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks as small as these spend their time waiting for the other threads

    def make(name: str, **options: object) -> Tiny:
        preset = next(p for p in DIFFACE if p.name == name)
        estimator_config = INPAINTER if name == "inpaint256" else ESTIMATOR
        torch.manual_seed(3)
        networks = {
            "estimator": LaMa(INPAINTER) if name == "inpaint256" else SwinIR(ESTIMATOR),
            "prior": UNet(PRIOR),
        }
        for component, network in networks.items():
            path = tmp_path / f"{preset.weights[component]}.safetensors"
            save_weights(parameters_of(_lively(network)), {}, path)
            load_weights(network, path)  # rounded to the file's half precision
        resolved = resolve_method("difface", name, options)
        shrunk = replace(preset, size=SIZE, prior=PRIOR, estimator=estimator_config)  # type: ignore[call-arg]
        return Tiny(
            replace(resolved, preset=shrunk),
            *(networks[component].double().eval() for component in ("estimator", "prior")),
        )

    yield make
    torch.set_num_threads(threads)


def _lively(network: nn.Module) -> nn.Module:
    """Initial weights make residual networks nearly linear: some noise on top, variances kept positive.

    The prior's output is halved: a random one stretches rounding errors a hundredfold on the way down a chain. The
    estimator's is enlarged, so that it has to be clipped.
    """
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if not name.endswith("running_var"):
                parameter.add_(0.05 * torch.randn(parameter.shape))
            if name == "net.conv_out.weight":
                parameter.mul_(0.5)
            if name == "conv_last.weight":
                parameter.mul_(10)
    return network
