"""What every method with networks needs: loading a component, choosing a precision."""

from __future__ import annotations

from pathlib import PurePath

import torch
from torch import nn

from bfr_models.device import keep_freed_memory, kind_of, precision_on
from bfr_models.errors import BfrError, UsageError
from bfr_models.networks.precision import keep_float32
from bfr_models.registry import ResolvedMethod
from bfr_models.weights.files import require_weight
from bfr_models.weights.tensors import load_weights

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load_component(network: nn.Module, resolved: ResolvedMethod, component: str, device: str) -> nn.Module:
    """The network with the component's weights, ready for inference. Raises unless they are the resolved ones."""
    weight = resolved.weights[component]
    sha256 = load_weights(network, require_weight(PurePath(weight["file"]).stem))
    if sha256 != weight["sha256"]:
        raise BfrError(
            f"{weight['file']}: expected sha256 {weight['sha256']} as when the run was planned, found {sha256}; "
            "install the same version everywhere"
        )
    if kind_of(device) == "cpu":
        keep_freed_memory()
    network = keep_float32(network.requires_grad_(False).eval())
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return _compiled(network, device) if resolved.options.compile else network


def _compiled(network: nn.Module, device: str) -> nn.Module:
    """UsageError without the compiler that torch's own needs: else every face would fail, each by itself."""
    if kind_of(device) == "cpu":
        require_cpp_compiler()
    return torch.compile(network)  # type: ignore[return-value]


def require_cpp_compiler() -> None:
    """UsageError if this machine has none, or not the one that CXX names."""
    from torch._inductor.cpp_builder import get_cpp_compiler  # after a second

    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise UsageError(
            "expected a C++ compiler, which the option compile needs on a CPU, found none; install g++ on every "
            "machine that restores, or leave the option out"
        ) from error


def autocast(device: str, precision: str) -> torch.autocast:
    """Mixed precision for the networks, but for what `keep_float32` keeps; samplers are outside. 'fp32': none."""
    chosen = precision_on(device, precision)
    return torch.autocast(kind_of(device), _DTYPES.get(chosen), enabled=chosen in _DTYPES)
