"""Real-ESRGAN's files: read as they are published, every tensor under its name, and nothing else accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bfr_models.conversion.realesrgan import convert_rrdbnet, convert_x2plus, convert_x4plus
from bfr_models.errors import UsageError
from bfr_models.networks.configs import RRDBNetConfig
from bfr_models.networks.rrdbnet import RRDBNet
from bfr_models.weights.catalogue import entries
from bfr_models.weights.tensors import read_checkpoint
from tasks.list_weights import list_weights

SMALL = RRDBNetConfig(factor=2, channels=6, growth=4, blocks=2)


def published(blocks: int, channels: int, growth: int, colours: int, device: str = "cpu") -> dict[str, Tensor]:
    """Names and shapes as a file of this network lists them."""
    state: dict[str, Tensor] = {}

    def conv(name: str, out: int, into: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, 3, 3, device=device)
        state[f"{name}.bias"] = torch.randn(out, device=device)

    conv("conv_first", channels, colours)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for layer in (1, 2, 3, 4, 5):
                out = channels if layer == 5 else growth
                conv(f"body.{block}.rdb{dense}.conv{layer}", out, channels + (layer - 1) * growth)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        conv(name, channels, channels)
    conv("conv_last", 3, channels)
    return state


@pytest.mark.parametrize("key", ["params_ema", "params"])
def test_a_published_file_is_read_and_loads_strictly(tmp_path: Path, key: str) -> None:
    state = published(2, 6, 4, 12)
    torch.save({key: state}, tmp_path / "net.pth")
    converted = convert_rrdbnet(read_checkpoint(tmp_path / "net.pth"), SMALL)
    RRDBNet(SMALL).load_state_dict(converted, strict=True)
    assert converted.keys() == state.keys() and all(torch.equal(converted[name], state[name]) for name in state)


def test_the_averaged_tensors_are_taken_where_a_file_has_both(tmp_path: Path) -> None:
    torch.save({"params": {"a": torch.zeros(1)}, "params_ema": {"a": torch.ones(1)}}, tmp_path / "net.pth")
    assert read_checkpoint(tmp_path / "net.pth")["a"] == 1


def test_missing_unknown_and_misshapen_tensors_are_refused() -> None:
    state = published(2, 6, 4, 12)
    without = {name: tensor for name, tensor in state.items() if name != "conv_hr.bias"}
    for wrong, message in (
        (without, r"missing conv_hr\.bias"),
        (state | {"conv_up3.weight": torch.zeros(1)}, r"unexpected conv_up3\.weight"),
        (state | {"conv_last.bias": torch.zeros(4)}, r"of another shape conv_last\.bias"),
    ):
        with pytest.raises(UsageError, match=message):
            convert_rrdbnet(wrong, SMALL)


def test_the_two_published_networks_are_told_apart() -> None:
    two, four = (published(23, 64, 32, colours, "meta") for colours in (12, 3))
    assert len(convert_x2plus(two)) == len(convert_x4plus(four)) == 702
    for convert, other in ((convert_x2plus, four), (convert_x4plus, two)):
        with pytest.raises(UsageError, match=r"of another shape conv_first\.weight"):
            convert(other)
    assert [entry.converter for entry in entries("realesrgan")] == [
        "bfr_models.conversion.realesrgan:convert_x2plus",
        "bfr_models.conversion.realesrgan:convert_x4plus",
    ]
    assert {"realesrgan/x2plus", "realesrgan/x4plus"} <= {row["name"] for row in list_weights()}
    assert all(entry.sha256 and entry.size and not entry.non_commercial for entry in entries("realesrgan"))
