"""ArcFace: facexlib's network key by key, its alignment, and vectors that depend on the face alone."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from bfr_models.conversion.arcface import convert_arcface
from bfr_models.errors import BfrError, UsageError
from bfr_models.faces import arcface
from bfr_models.faces.align import align
from bfr_models.faces.arcface import ARCFACE_5, ArcFaceRecogniser, recogniser_crop
from bfr_models.faces.dlib_models import DlibDetector
from bfr_models.faces.template import FFHQ_5, at_size
from bfr_models.faces.types import Recogniser
from bfr_models.networks.arcface import ArcFace
from bfr_models.pixels import Uint8Image
from bfr_models.weights import catalogue
from tasks.import_weights import import_weights

STEM = "facexlib-arcface"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """A random checkpoint as facexlib's is: by its names, with the counters of its norms."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in ArcFace().named_parameters()}
    checkpoint: State = {}
    for name, shape in shapes.items():
        fan_in = shape[1:].numel() if len(shape) > 1 else 1
        checkpoint[name] = torch.randn(shape) * (2 / fan_in) ** 0.5 if fan_in > 1 else 0.1 * torch.randn(shape) + 0.25
        if name.endswith("running_var"):
            checkpoint[name].abs_().add_(0.5)
            checkpoint[name.replace("running_var", "num_batches_tracked")] = torch.tensor(7)
    return checkpoint


@pytest.fixture(scope="module")
def cache(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint as `bfr weights import facexlib/arcface` leaves it."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / "recognition.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BFR_WEIGHTS", str(folder))
        card = import_weights("facexlib/arcface", [folder / "recognition.pth"])[0]
    assert card["source"]["trust"] == "imported, another sha256"
    return folder


@pytest.fixture(scope="module")
def recogniser(cache: Path) -> ArcFaceRecogniser:
    return ArcFaceRecogniser(cache / f"{STEM}.safetensors")


@pytest.fixture(scope="module")
def faces() -> list[Uint8Image]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (side, side, 3), np.uint8) for side in (112, 128, 512)]


def published(name: str) -> ModuleType:
    """A module of facexlib, without importing the package, which needs a torchvision that works."""
    found = find_spec("facexlib")
    if found is None or not found.submodule_search_locations:
        pytest.skip("facexlib is not installed")
    package, _, module = name.partition(".")
    for parent in ("facexlib", f"facexlib.{package}"):
        sys.modules.setdefault(parent, ModuleType(parent))
    folder = Path(found.submodule_search_locations[0]) / package
    sys.modules[f"facexlib.{package}"].__path__ = [str(folder)]
    return importlib.import_module(f"facexlib.{package}.{module}")


@pytest.fixture
def own_modules() -> Any:
    """What a test imports of facexlib is forgotten afterwards."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("facexlib"):
            del sys.modules[name]


def reference(state: State, x: torch.Tensor) -> torch.Tensor:
    """facexlib's own network, strictly loaded."""
    network = published("recognition.arcface_arch").Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se").eval()
    network.load_state_dict(state, strict=True)
    with torch.inference_mode():
        return network(x)


def test_the_network_has_the_published_size(state: State) -> None:
    trained = sum(value.numel() for name, value in state.items() if "running" not in name and "tracked" not in name)
    assert trained == 43_797_696


@pytest.mark.usefixtures("own_modules")
def test_vectors_are_those_of_facexlibs_network(
    state: State, recogniser: ArcFaceRecogniser, faces: list[Uint8Image]
) -> None:
    crops = np.stack([recogniser_crop(face) for face in faces])
    x = ((torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5).contiguous()
    np.testing.assert_allclose(recogniser.embed(faces), reference(state, x).numpy(), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("own_modules")
@pytest.mark.parametrize("side", [112, 128, 512])
def test_a_face_is_aligned_as_facexlib_aligns_it(side: int) -> None:
    align_trans = published("detection.align_trans")
    template = align_trans.get_reference_facial_points(default_square=True)
    np.testing.assert_allclose(template, ARCFACE_5)
    matrix = align_trans.get_similarity_transform_for_cv2(at_size(FFHQ_5, side), np.asarray(template))
    np.testing.assert_allclose(arcface._to_recogniser(side), matrix, atol=1e-6)


def test_landmarks_come_close_to_the_template() -> None:
    placed = at_size(FFHQ_5, 512) @ arcface._to_recogniser(512)[:, :2].T + arcface._to_recogniser(512)[:, 2]
    assert np.linalg.norm(placed - ARCFACE_5, axis=1).max() < 4  # px of 112: people's faces differ as much


def test_vectors_are_of_unit_length_in_order_and_do_not_depend_on_neighbours(
    recogniser: ArcFaceRecogniser, faces: list[Uint8Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(recogniser.name, str) and check(recogniser).name == "arcface_ir_se50"
    together = recogniser.embed(faces)
    assert together.shape == (3, 512) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    monkeypatch.setattr(arcface, "BATCH", 2)
    np.testing.assert_allclose(recogniser.embed(faces[::-1])[::-1], together, rtol=0, atol=1e-6)
    assert recogniser.embed([]).shape == (0, 512)


def check(recogniser: Recogniser) -> Recogniser:
    """For mypy: it is one."""
    return recogniser


def test_a_crop_of_the_recognisers_own_is_neither_blurred_nor_moved(
    collins: Uint8Image, detector: DlibDetector
) -> None:
    """The same face at four times the size has nearly the same crop: nothing shifts by half a pixel."""
    landmarks = detector.detect(collins)[0].landmarks
    small, large = (align(collins, landmarks, detector.template, side)[0] for side in (128, 512))
    difference = np.abs(recogniser_crop(small).astype(float) - recogniser_crop(large))
    shifted = np.abs(recogniser_crop(small).astype(float) - np.roll(recogniser_crop(large), 1, axis=1))
    assert difference[8:-8, 8:-8].mean() < 0.5 * shifted[8:-8, 8:-8].mean()


def test_a_face_that_is_not_square_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a square aligned face, got 30 x 20"):
        recogniser_crop(np.zeros((20, 30, 3), np.uint8))


class TestConversion:
    def test_every_tensor_is_used_and_only_counters_are_dropped(self, state: State) -> None:
        converted = convert_arcface({"state_dict": {f"module.{name}": value for name, value in state.items()}})
        assert set(state) - set(converted) == {name for name in state if name.endswith("num_batches_tracked")}
        assert all(torch.equal(value, state[name]) for name, value in converted.items())

    def test_what_is_missing_or_left_over_is_named(self, state: State) -> None:
        wrong = {name: value for name, value in state.items() if name != "body.3.res_layer.5.fc1.weight"}
        with pytest.raises(UsageError, match=r"missing body\.3\.res_layer\.5\.fc1\.weight, unexpected more"):
            convert_arcface({**wrong, "more": torch.zeros(1)})

    def test_the_catalogue_names_it(self) -> None:
        (entry,) = catalogue.entries("facexlib/arcface")
        assert entry.converter == "bfr_models.conversion.arcface:convert_arcface"
        assert entry.file == f"{STEM}.safetensors" and entry.to_fetch == "facexlib/arcface"

    def test_the_recognisers_sha256_is_its_files_and_a_damaged_file_is_refused(
        self, cache: Path, recogniser: ArcFaceRecogniser, tmp_path: Path
    ) -> None:
        card = json.loads((cache / f"{STEM}.json").read_text())
        assert recogniser.sha256 == card["sha256"]
        (tmp_path / f"{STEM}.json").write_text(json.dumps(card))
        (tmp_path / f"{STEM}.safetensors").write_bytes(b"rot")
        with pytest.raises(BfrError, match="the file is damaged"):
            ArcFaceRecogniser(tmp_path / f"{STEM}.safetensors")
