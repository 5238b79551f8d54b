"""LPIPS is torchmetrics' (which copies the authors') on one and the same trunk, and needs no torchvision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bfr_models.conversion.metric_networks import convert_alexnet, convert_squeezenet, convert_vgg16
from bfr_models.errors import UsageError
from bfr_models.metrics.lpips import LPIPS, WEIGHTS, load_lpips
from bfr_models.networks.imagenet_trunks import TAPS, Trunk, TrunkName
from bfr_models.weights.files import ASSETS, check_weight, read_card
from bfr_models.weights.tensors import parameters_of, save_weights

TRUNKS = list(TAPS)
CONVERTERS = {"alex": convert_alexnet, "vgg": convert_vgg16, "squeeze": convert_squeezenet}


class Fire(nn.Module):
    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.expand1x1(x)), torch.relu(self.expand3x3(x))], 1)


def published_features(trunk: TrunkName) -> nn.Sequential:
    """Torchvision's `features`, written down layer by layer from its documentation."""
    relu = nn.ReLU()
    if trunk == "alex":
        pool = nn.MaxPool2d(3, 2)
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), relu, pool, nn.Conv2d(64, 192, 5, 1, 2), relu, pool,
            nn.Conv2d(192, 384, 3, 1, 1), relu, nn.Conv2d(384, 256, 3, 1, 1), relu,
            nn.Conv2d(256, 256, 3, 1, 1), relu, pool,
        )  # fmt: skip
    if trunk == "squeeze":
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        return nn.Sequential(
            nn.Conv2d(3, 64, 3, 2), relu, pool, Fire(64, 16, 64), Fire(128, 16, 64), pool,
            Fire(128, 32, 128), Fire(256, 32, 128), pool,
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
        )  # fmt: skip
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(channels, width, 3, 1, 1), relu] if width else [nn.MaxPool2d(2, 2)]
        channels = width or channels
    return nn.Sequential(*layers)


@pytest.fixture(params=TRUNKS)
def pair(request: pytest.FixtureRequest) -> tuple[LPIPS, nn.Sequential]:
    """Ours, and torchvision's features, with one random set of weights under which no layer dies out."""
    torch.manual_seed(0)
    features = published_features(request.param)
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
    published = {f"features.{name}": value for name, value in features.state_dict().items()}
    published["classifier.1.weight"] = torch.zeros(1000, 5)
    ours = LPIPS(request.param)
    ours.trunk.load_state_dict(CONVERTERS[request.param](published))
    return ours.eval(), features


def pictures(n: int = 3, height: int = 65, width: int = 80) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.rand(n, 3, height, width, generator=generator) * 2 - 1 for _ in range(2))
    return first, second


def test_it_is_torchmetrics(pair: tuple[LPIPS, nn.Sequential], monkeypatch: pytest.MonkeyPatch) -> None:
    reference = pytest.importorskip("torchmetrics.functional.image.lpips")
    ours, features = pair
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda net, pretrained=False: features)
    theirs = reference._LPIPS(net=ours.name.removeprefix("lpips_"), pnet_rand=True)
    x, y = pictures()
    with torch.no_grad():
        expected = theirs(x, y).flatten()
    torch.testing.assert_close(ours(x, y), expected, rtol=0, atol=1e-6)
    assert float(expected.min()) > 0.01


def test_the_heads_are_those_of_torchmetrics(pair: tuple[LPIPS, nn.Sequential]) -> None:
    reference = pytest.importorskip("torchmetrics.functional.image.lpips")
    ours, _ = pair
    file = Path(reference.__file__).parent / f"lpips_models/{ours.name.removeprefix('lpips_')}.pth"
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    assert all(torch.equal(head, theirs[f"lin{i}.model.1.weight"]) for i, head in enumerate(ours.heads.parameters()))
    assert len(theirs) == len(ours.heads)


def test_it_is_a_distance_that_no_batch_changes(pair: tuple[LPIPS, nn.Sequential]) -> None:
    ours, _ = pair
    x, y = pictures()
    together = ours(x, y)
    torch.testing.assert_close(ours(y, x), together)
    torch.testing.assert_close(ours(x[1:2], y[1:2]), together[1:2], rtol=1e-5, atol=1e-7)
    assert together.shape == (3,) and not together.requires_grad
    assert torch.equal(ours(x, x), torch.zeros(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x, y), together)
    with pytest.raises(ValueError, match="one shape"):
        ours(x, y[:, :, 1:])


def test_the_checkpoint_of_another_trunk_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unexpected features\.12"):
        convert_alexnet(parameters_of(Trunk("vgg")))


def test_it_is_loaded_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    with pytest.raises(UsageError, match="bfr weights fetch lpips"):
        load_lpips("squeeze")
    trunk = Trunk("squeeze")
    sha256 = save_weights(parameters_of(trunk), {}, tmp_path / f"{WEIGHTS['squeeze']}.safetensors")
    lpips = load_lpips("squeeze")
    assert (lpips.name, lpips.sha256) == ("lpips_squeeze", sha256)
    assert float(lpips(*pictures(1))[0]) > 0


@pytest.mark.parametrize(("name", "of"), [("lpips-heads", "Richard Zhang"), ("niqe-pristine", "University of Texas")])
def test_what_others_made_ships_with_their_notice(name: str, of: str) -> None:
    path = ASSETS / f"{name}.safetensors"
    check_weight(path)
    card = read_card(path)
    assert of in card["notice"] and card["licence"] and card["origin"] and path.stat().st_size == card["bytes"] < 30_000


def test_heads_weigh_and_never_reward() -> None:
    for trunk in TRUNKS:
        for head in LPIPS(trunk).heads.parameters():
            assert float(head.min()) >= 0 and np.isfinite(head.numpy()).all() and float(head.max()) > 0
