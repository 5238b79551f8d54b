"""Weights as safetensors beside a JSON card: checked by sha256 before use, loaded strictly.

A file holds a network's parameters as fp16; buffers that the constructor can rebuild are left out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from bfr_models.errors import BfrError


def parameters_of(network: nn.Module) -> dict[str, Tensor]:
    """The network's parameters by name, without buffers."""
    return {name: p.detach() for name, p in network.named_parameters()}


def save_weights(parameters: dict[str, Tensor], card: dict[str, object], path: Path) -> str:
    """Writes PATH (.safetensors, fp16) and its card (.json, with the sha256); returns the sha256."""
    half = {name: p.to("cpu", torch.float16).contiguous() for name, p in parameters.items()}
    data = save_safetensors(half)
    sha256 = hashlib.sha256(data).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    full_card = {**card, "file": path.name, "bytes": len(data), "sha256": sha256}
    path.with_suffix(".json").write_text(json.dumps(full_card, indent=2) + "\n")
    return sha256


def read_card(path: Path) -> dict[str, object]:
    """The card beside a weight file."""
    try:
        card: dict[str, object] = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise BfrError(f"expected a card beside {path.name}, found none that reads ({error}); reinstall") from None
    return card


def load_weights(network: nn.Module, path: Path) -> str:
    """Fills every parameter of `network` from PATH, or raises; returns the file's sha256."""
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    expected = read_card(path)["sha256"]
    if sha256 != expected:
        raise BfrError(f"{path.name}: expected sha256 {expected}, found {sha256}; the file is damaged: reinstall")
    state = load_safetensors(data)
    wanted = dict(network.named_parameters())
    if state.keys() != wanted.keys():
        missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
        raise BfrError(f"{path.name} does not fit the network: missing {missing[:3]}, unexpected {extra[:3]}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if parameter.shape != state[name].shape:
                raise BfrError(
                    f"{path.name}: {name}: expected shape {tuple(parameter.shape)}, found {tuple(state[name].shape)}"
                )
            parameter.copy_(state[name])
    return sha256
