"""AdaFace: its published layers, written here a second time; ArcFace's crop; a checkpoint of Lightning's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bfr_models.conversion.adaface import convert_adaface
from bfr_models.conversion.strict import on_meta
from bfr_models.errors import BfrError, UsageError
from bfr_models.faces.adaface import AdaFaceRecogniser
from bfr_models.faces.arcface import recogniser_crop
from bfr_models.faces.recognisers import ADAFACE
from bfr_models.faces.types import Recogniser
from bfr_models.networks import iresnet
from bfr_models.networks.adaface import AdaFace
from bfr_models.pixels import Uint8Image
from bfr_models.weights import catalogue
from bfr_models.weights.tensors import read_checkpoint
from tasks.import_weights import import_weights

STEM = "adaface-ir50-ms1mv2"
PEOPLE = 7  # in the published file 85,742
PUBLISHED = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels, blocks
SMALL = ((64, 1), (128, 1), (256, 2), (512, 1))  # every kind of block, in a third of the weights
State = dict[str, Tensor]
Stages = tuple[tuple[int, int], ...]


def blocks(stages: Stages) -> Iterator[tuple[str, int, int, int]]:
    """(name, channels in, channels out, stride): the first block of a stage halves the image."""
    number, channels = 0, 64
    for out, count in stages:
        for i in range(count):
            yield f"body.{number}", channels, out, 1 if i else 2
            number, channels = number + 1, out


def shapes(stages: Stages) -> dict[str, tuple[int, ...]]:
    """Of the published network's tensors."""
    found: dict[str, tuple[int, ...]] = {"input_layer.0.weight": (64, 3, 3, 3), "input_layer.2.weight": (64,)}
    norms = {"input_layer.1": 64, "output_layer.0": 512}
    for block, channels, out, _ in blocks(stages):
        norms |= {f"{block}.res_layer.0": channels, f"{block}.res_layer.2": out, f"{block}.res_layer.5": out}
        found[f"{block}.res_layer.1.weight"] = (out, channels, 3, 3)
        found[f"{block}.res_layer.3.weight"] = (out,)
        found[f"{block}.res_layer.4.weight"] = (out, out, 3, 3)
        if channels != out:
            norms[f"{block}.shortcut_layer.1"] = out
            found[f"{block}.shortcut_layer.0.weight"] = (out, channels, 1, 1)
    for name, channels in norms.items():
        found |= {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    found |= {"output_layer.3.weight": (512, 512 * 7 * 7), "output_layer.3.bias": (512,)}
    return found | {f"output_layer.4.{part}": (512,) for part in ("running_mean", "running_var")}


@pytest.fixture(scope="module")
def state() -> State:
    """A random checkpoint as AdaFace's is: by its names, with its head and the counters of its norms."""
    torch.manual_seed(0)
    checkpoint: State = {"head.kernel": torch.randn(512, PEOPLE), "head.t": torch.zeros(1)}
    for name, shape in shapes(SMALL).items():
        fan_in = int(np.prod(shape[1:]))
        values = torch.randn(shape) * (2 / fan_in) ** 0.5 if len(shape) > 1 else 0.1 * torch.randn(shape) + 0.25
        if name.endswith("running_var"):
            values = values.abs() + 0.5
            checkpoint[f"model.{name.replace('running_var', 'num_batches_tracked')}"] = torch.tensor(7)
        checkpoint[f"model.{name}"] = values
    return checkpoint


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iresnet, "STAGES", SMALL)


@pytest.fixture
def recogniser(state: State, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AdaFaceRecogniser:
    """As `bfr weights import adaface` leaves it."""
    torch.save({"state_dict": state, "epoch": 25, "hyper_parameters": {"arch": "ir_50"}}, tmp_path / "adaface.ckpt")
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    card = import_weights("adaface", [tmp_path / "adaface.ckpt"])[0]
    assert card["source"]["trust"] == "imported, sha256 not known"
    recogniser = AdaFaceRecogniser(tmp_path / f"{STEM}.safetensors")
    assert recogniser.sha256 == card["sha256"]
    return recogniser


def reference(state: State, x: Tensor) -> Tensor:
    """The published network in functions: BGR in [-1, 1] -> unit vectors."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = (state[f"model.{name}.running_{part}"] for part in ("mean", "var"))
        return F.batch_norm(x, mean, var, state.get(f"model.{name}.weight"), state.get(f"model.{name}.bias"))

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(x, state[f"model.{name}.weight"], stride=stride, padding=padding)

    x = F.prelu(norm(conv(x, "input_layer.0"), "input_layer.1"), state["model.input_layer.2.weight"])
    for block, channels, out, stride in blocks(SMALL):
        shortcut = x[:, :, ::stride, ::stride]
        if channels != out:
            shortcut = norm(conv(x, f"{block}.shortcut_layer.0", stride, 0), f"{block}.shortcut_layer.1")
        y = norm(conv(norm(x, f"{block}.res_layer.0"), f"{block}.res_layer.1"), f"{block}.res_layer.2")
        y = conv(F.prelu(y, state[f"model.{block}.res_layer.3.weight"]), f"{block}.res_layer.4", stride)
        x = norm(y, f"{block}.res_layer.5") + shortcut
    x = norm(x, "output_layer.0").flatten(1)
    x = norm(F.linear(x, state["model.output_layer.3.weight"], state["model.output_layer.3.bias"]), "output_layer.4")
    return x / x.norm(dim=1, keepdim=True)


def faces() -> list[Uint8Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (112, 512)]


def test_the_network_has_the_published_layers() -> None:
    found = {name: tuple(parameter.shape) for name, parameter in on_meta(AdaFace).named_parameters()}
    assert found == shapes(PUBLISHED)
    assert sum(int(np.prod(shape)) for name, shape in found.items() if "running" not in name) == 43_585_600


def test_its_name_is_that_of_the_table(recogniser: AdaFaceRecogniser) -> None:
    assert recogniser.name == ADAFACE


def test_vectors_are_those_of_the_published_layers_for_bgr(state: State, recogniser: AdaFaceRecogniser) -> None:
    crops = np.stack([recogniser_crop(face)[..., ::-1] for face in faces()])
    x = torch.from_numpy(((crops / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).astype(np.float32))
    vectors = recogniser.embed(faces())
    np.testing.assert_allclose(vectors, reference(state, x).numpy(), rtol=0, atol=1e-5)
    assert np.abs(vectors - reference(state, x.flip(1)).numpy()).max() > 1e-3  # not those for RGB
    assert vectors.dtype == np.float32 and check(recogniser).name == "adaface_ir50_ms1mv2"


def check(recogniser: Recogniser) -> Recogniser:
    """For mypy: it is one."""
    return recogniser


@pytest.mark.usefixtures("small")
class TestConversion:
    def test_every_tensor_of_the_network_is_used(self, state: State) -> None:
        converted = convert_adaface(state)
        assert converted.keys() == shapes(SMALL).keys()
        assert all(torch.equal(value, state[f"model.{name}"]) for name, value in converted.items())

    def test_what_is_missing_or_left_over_is_named(self, state: State) -> None:
        wrong = {name: value for name, value in state.items() if name != "model.body.3.res_layer.2.bias"}
        with pytest.raises(UsageError, match=r"missing body\.3\.res_layer\.2\.bias, unexpected more"):
            convert_adaface({**wrong, "model.more": torch.zeros(1)})

    def test_a_checkpoint_with_objects_of_its_training_is_refused_unread(self, state: State, tmp_path: Path) -> None:
        content = {"state_dict": {"model.x": torch.zeros(1)}, "hyper_parameters": argparse.Namespace(arch="ir_50")}
        torch.save(content, tmp_path / "last.ckpt")
        with pytest.raises(BfrError, match="not read since they could run code; save its state_dict alone"):
            read_checkpoint(tmp_path / "last.ckpt")

    def test_the_catalogue_names_it(self) -> None:
        (entry,) = catalogue.entries("adaface")
        assert entry.source_file == "adaface_ir50_ms1mv2.ckpt" and entry.file == f"{STEM}.safetensors"
        assert entry.sha256 is None and entry.licence == "MIT" and not entry.non_commercial
