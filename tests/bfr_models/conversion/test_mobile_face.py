"""The recogniser of Open Model Zoo, from its ONNX file: strict, and what it computes is what OpenCV computes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from bfr_models.conversion.mobile_face import convert_recogniser
from bfr_models.errors import BfrError, UsageError
from bfr_models.networks.mobile_face import MobileFace, load_mobile_face
from bfr_models.weights.tensors import read_checkpoint
from tasks.import_weights import import_weights

PUBLISHED = Path(__file__).parents[4] / "shared" / "weights" / "face-reidentification-retail-0095.onnx"


def test_tensors_are_taken_in_their_order_whatever_their_names() -> None:
    torch.manual_seed(0)
    theirs = {f"t{i}": torch.randn(p.numel()).half() for i, p in enumerate(MobileFace().parameters())}
    ours = convert_recogniser(theirs)
    assert list(ours) == [name for name, _ in MobileFace().named_parameters()]
    for tensor, source in zip(ours.values(), theirs.values(), strict=True):
        assert tensor.dtype == torch.float32 and torch.equal(tensor.flatten(), source.float())


def test_another_network_is_refused() -> None:
    with pytest.raises(UsageError, match=r"expected the \d+ tensors of face-reidentification-retail-0095, found 1"):
        convert_recogniser({"w": torch.zeros(3)})
    theirs = {f"t{i}": torch.zeros(p.numel()) for i, p in enumerate(MobileFace().parameters())}
    with pytest.raises(UsageError, match=r"expected shift of shape \(3, 1, 1\), found t1 of shape \(4,\)"):
        convert_recogniser(theirs | {"t1": torch.zeros(4)})


def test_a_file_that_only_begins_like_onnx_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08" + bytes(range(256)))
    with pytest.raises(BfrError, match="expected a checkpoint of tensors"):
        read_checkpoint(tmp_path / "net.onnx")


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs the ONNX file")
def test_it_imports_and_embeds_as_opencv_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds half precision, which both compute with in float32: unit vectors agree to 1e-5."""
    pytest.importorskip("onnx")
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    (card,) = import_weights("recogniser", [PUBLISHED])
    network = load_mobile_face(Path(card["path"]))
    crops = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    reference = cv2.dnn.readNetFromONNX(str(PUBLISHED))
    expected = []
    for crop in crops:
        reference.setInput(((crop + 1) * 127.5).flip(0)[None].numpy())
        expected.append(reference.forward().flatten())
    unit = np.stack(expected) / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(network(crops).detach().numpy(), unit, rtol=0, atol=1e-5)
