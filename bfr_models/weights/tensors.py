"""Weights as safetensors beside a JSON card: checked by sha256 before use, loaded strictly.

A file holds a network's parameters; buffers that the constructor can rebuild are left out.
`bfr_models.weights.files` knows where the files are. Nothing else in this project loads a weight file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from bfr_models.errors import BfrError, UsageError
from bfr_models.weights.files import damaged, read_card, unreadable


def parameters_of(network: nn.Module) -> dict[str, Tensor]:
    """The network's parameters by name, without buffers."""
    return {name: p.detach() for name, p in network.named_parameters()}


def save_weights(parameters: dict[str, Tensor], card: dict[str, object], path: Path) -> str:
    """Writes PATH (.safetensors, fp16) and its card (.json, with the sha256); returns the sha256."""
    data = encode_weights({name: p.to(torch.float16) for name, p in parameters.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    full_card = {**card, "file": path.name, "bytes": len(data), "sha256": sha256}
    path.with_suffix(".json").write_text(json.dumps(full_card, indent=2) + "\n")
    return sha256


def encode_weights(parameters: Mapping[str, Tensor]) -> bytes:
    """The parameters as safetensors, each in its own dtype."""
    return save_safetensors({name: p.cpu().contiguous() for name, p in parameters.items()})


CONTAINERS = ("state_dict", "params_ema", "params")
"""Under which of its keys a checkpoint has the tensors; BasicSR's have the averaged ones beside the last ones."""


def contained(checkpoint: Mapping[str, Any]) -> Any:
    """What is under the first of `CONTAINERS`, or else the checkpoint itself."""
    return next((checkpoint[name] for name in CONTAINERS if name in checkpoint), checkpoint)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint: safetensors, ONNX, or what `torch.save` wrote, out of the dict they are
    in (`CONTAINERS`). Only tensors and plain containers are unpickled: a file cannot run code."""
    try:
        content = _content(path)
    except UnpicklingError:  # torch's own message advises running the file's code
        raise BfrError(
            f"expected a checkpoint of tensors at {path}, found no checkpoint, or one with other objects, which "
            "are not read since they could run code; save its state_dict alone"
        ) from None
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, SafetensorError) as error:
        raise BfrError(f"expected a checkpoint of tensors at {path}, found none that reads ({error})") from None
    state = contained(content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BfrError(f"expected tensors by name at {path}, found {type(state).__name__} with other things in it")
    return dict(state)


def _content(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # a header of JSON after its length
        return load_safetensors(path.read_bytes())
    if head[:1] == b"\x08":  # the first field of ONNX's protocol buffer: its version
        return _onnx_initialisers(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _onnx_initialisers(path: Path) -> dict[str, Tensor]:
    """The tensors in the file's order; their names mean nothing."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise UsageError(
            f"expected the package onnx to read {path.name}, found none: pip install 'bfr-pipeline[onnx]'"
        ) from None
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception as error:  # the parser's own exceptions share no other base
        raise ValueError(f"no ONNX: {error}") from None
    return {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}


def load_weights(network: nn.Module, path: Path) -> str:
    """Fills every parameter of `network` from PATH, or raises; returns the file's sha256."""
    expected = read_card(path)["sha256"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != expected:
        raise damaged(path, expected, sha256)
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
