"""Open Model Zoo's face-reidentification-retail-0095 under our parameter names: nothing changed, left over or missing.

Its ONNX files name their tensors by node, so the order is what counts: input scale and shift, then the layers as they
are computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bfr_models.errors import UsageError
from bfr_models.networks.mobile_face import MobileFace


def convert_recogniser(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The initialisers of the ONNX file, in its order, as the parameters of `MobileFace()`. UsageError says what
    differs."""
    with torch.device("meta"):
        wanted = dict(MobileFace().named_parameters())
    if len(state) != len(wanted):
        raise UsageError(
            f"expected the {len(wanted)} tensors of face-reidentification-retail-0095, found {len(state)}; is it the "
            "ONNX file of that network?"
        )
    done = {}
    for (name, parameter), (theirs, tensor) in zip(wanted.items(), state.items(), strict=True):
        if tensor.numel() != parameter.numel():
            raise UsageError(
                f"expected {name} of shape {tuple(parameter.shape)}, found {theirs} of shape {tuple(tensor.shape)}; is "
                "it the ONNX file of face-reidentification-retail-0095?"
            )
        done[name] = tensor.float().reshape(parameter.shape).contiguous()
    return done
