"""The Inception of FID: pytorch-fid's key layout, and its numbers for planted weights."""

import numpy as np
import pytest
import torch
from torch import Tensor

from bfr_models.conversion.metric_networks import convert_inception
from bfr_models.errors import UsageError
from bfr_models.metrics.inception_features import prepare_clean_fid, prepare_pytorch_fid
from bfr_models.networks import inception
from bfr_models.networks.inception import Inception
from bfr_models.pixels import Uint8Image
from bfr_models.weights.tensors import parameters_of


def planted_weights() -> dict[str, Tensor]:
    """Waves: weights that any implementation can make, under which features are of a real network's size."""
    state = {}
    for number, (name, parameter) in enumerate(sorted(parameters_of(Inception()).items())):
        wave = torch.from_numpy(np.sin(np.arange(parameter.numel()) * 0.7390851 + number)).float()
        wave = wave.reshape(parameter.shape)
        if name.endswith("conv.weight"):
            state[name] = wave * (4 / parameter[0].numel()) ** 0.5
        else:
            state[name] = 1 + 0.3 * wave if name.endswith(("bn.weight", "running_var")) else 0.1 * wave
    return state


def planted_face() -> Uint8Image:
    y, x = np.mgrid[:64, :48]
    return np.stack([(x * 5 + y * 3) % 256, (x * x + y) % 256, (7 * y + x * y) % 256], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def network() -> Inception:
    network = Inception().eval()
    network.load_state_dict(planted_weights())
    return network


def test_features_are_those_of_pytorch_fid(network: Inception) -> None:
    """The expected numbers are pytorch-fid 0.3.0's (torchvision 0.29.2) for these weights and this picture."""
    with torch.no_grad():
        features = network(prepare_pytorch_fid(planted_face())[None])[0].double()
    assert features.shape == (2048,)
    expected = [0.551509, 0.0, 0.0, 0.0846796, 0.0, 0.0, 0.0803431, 0.0]
    assert features[::256].tolist() == pytest.approx(expected, abs=2e-6)
    assert float(features.sum()) == pytest.approx(234.71514, rel=1e-5)
    assert int((features > 0).sum()) == 1348


def test_the_layout_is_the_checkpoints() -> None:
    parameters = parameters_of(Inception())
    assert len(parameters) == 470 and sum(p.numel() for p in parameters.values()) == 21_820_000
    assert parameters["Mixed_6c.branch7x7dbl_5.conv.weight"].shape == (192, 160, 1, 7)
    assert parameters["Mixed_7c.branch_pool.bn.running_var"].shape == (192,)


def test_a_checkpoint_converts_without_its_classifier() -> None:
    wanted = parameters_of(Inception())
    counters = {f"{name.removesuffix('weight')}num_batches_tracked": torch.tensor(5)
                for name in wanted if name.endswith("bn.weight")}  # fmt: skip
    published = {**wanted, **counters, "fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    converted = convert_inception(published)
    assert converted.keys() == wanted.keys()
    assert all(torch.equal(converted[name], wanted[name]) for name in wanted)
    del published["Mixed_5b.branch1x1.bn.running_mean"]
    with pytest.raises(UsageError, match=r"missing Mixed_5b\.branch1x1\.bn\.running_mean"):
        convert_inception(published)


def test_averages_leave_the_padding_out() -> None:
    assert torch.equal(inception._average(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 5, 5))


def test_a_picture_of_299_px_is_not_resized() -> None:
    face = np.random.default_rng(0).integers(0, 256, (299, 299, 3), dtype=np.uint8)
    levels = torch.from_numpy(face.transpose(2, 0, 1).astype(np.float32))
    torch.testing.assert_close(prepare_pytorch_fid(face), 2 * (levels / 255) - 1, rtol=0, atol=1e-6)
    assert torch.equal(prepare_clean_fid(face), (levels - 128) / 128)


def test_clean_fid_averages_what_pytorch_fid_skips() -> None:
    """Stripes of one pixel, made four times smaller: grey when averaged, stripes still when picked."""
    stripes = np.zeros((1196, 1196, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    inner = (slice(None), slice(10, -10), slice(10, -10))
    assert float(prepare_clean_fid(stripes)[inner].abs().max()) < 0.02
    picked = prepare_pytorch_fid(stripes)
    assert picked.shape == (3, 299, 299) and float(picked[inner].abs().max()) < 0.02  # between two stripes, by chance
    assert float(prepare_pytorch_fid(stripes[:, :1195])[inner].abs().max()) > 0.3
