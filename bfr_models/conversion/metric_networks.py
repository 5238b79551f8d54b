"""The networks of FID and LPIPS from pytorch-fid's and torchvision's checkpoints: what a metric needs, unchanged.

Their classifiers and the norms' batch counters are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bfr_models.conversion.strict import State, exactly, on_meta, tensors
from bfr_models.networks.imagenet_trunks import Trunk, TrunkName
from bfr_models.networks.inception import Inception


def convert_inception(state: Mapping[str, Any]) -> State:
    """`pt_inception-2015-12-05-6726825d.pth` as the parameters of `Inception`."""
    kept = {
        name: tensor
        for name, tensor in tensors(state).items()
        if name not in ("fc.weight", "fc.bias") and not name.endswith(".num_batches_tracked")
    }
    return exactly(kept, on_meta(Inception))


def convert_alexnet(state: Mapping[str, Any]) -> State:
    """`alexnet-owt-7be5be79.pth` as the parameters of `Trunk("alex")`."""
    return _convert_trunk(state, "alex")


def convert_vgg16(state: Mapping[str, Any]) -> State:
    """`vgg16-397923af.pth` as the parameters of `Trunk("vgg")`."""
    return _convert_trunk(state, "vgg")


def convert_squeezenet(state: Mapping[str, Any]) -> State:
    """`squeezenet1_1-b8a52dc0.pth` as the parameters of `Trunk("squeeze")`."""
    return _convert_trunk(state, "squeeze")


def _convert_trunk(state: Mapping[str, Any], trunk: TrunkName) -> State:
    kept = {name: tensor for name, tensor in tensors(state).items() if not name.startswith("classifier.")}
    return exactly(kept, on_meta(Trunk, trunk))
