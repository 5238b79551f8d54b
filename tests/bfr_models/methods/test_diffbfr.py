"""DiffBFR with tiny networks of random weights: its chains are those of the equations, and do as they are told."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bfr_models.diffusion.schedule import linear_alphas_cumprod
from bfr_models.errors import UsageError
from bfr_models.methods.diffbfr import DiffBFR, corrected
from bfr_models.methods.diffbfr_presets import DIFFBFR, DiffBFROptions, DiffBFRPreset
from bfr_models.networks.configs import UNetConfig, UNetEstimatorConfig
from bfr_models.networks.unet import UNet
from bfr_models.networks.unet_estimator import UNetEstimator
from bfr_models.pixels import resize
from bfr_models.registry import ResolvedMethod
from bfr_models.types import FaceBatch
from bfr_models.weights.tensors import load_weights, parameters_of, save_weights

SIZE, LOW = 16, 8
PRIOR = UNetConfig(SIZE, (16, 16), 1, (1,), head_dim=8, norm_groups=8, learn_sigma=True)
TINY = DiffBFRPreset(
    "tiny",
    SIZE,
    "-",
    options=DiffBFROptions(
        start_low=130,
        start_high=50,
        texture_timestep=22.5,
        steps=4,
        steps_high=3,
        steps_texture=2,
        sampler="ddim",
        eta=0.0,
    ),
    weights={name: f"tiny-{name}" for name in ("estimator", "irm_low", "irm_high", "flow", "tem")},
    irm_low=replace(PRIOR, sample_size=LOW, condition_channels=3, learn_sigma=False),
    irm_high=replace(PRIOR, condition_channels=6, learn_sigma=False),
    prior=PRIOR,
    low_max_timestep=999,
    high_max_timestep=300,
    max_timestep=300,
    estimator=UNetEstimatorConfig(channels=(8, 16), blocks=(1, 1), half_channels=8, full_channels=4, coarsest=2),
    flow=replace(PRIOR, learn_sigma=False),
)
SWITCHES = [
    {}, {"cascade": False}, {"texture": False}, {"truncated": False}, {"cascade": False, "texture": False},
    {"start": "estimate"}, {"start": "estimate", "cascade": False}, {"start": "estimate", "second": "flow"},
    {"start": "estimate", "second": "flow", "flow_share": 0.5, "texture": False},
]  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    load: Callable[..., DiffBFR]  # with these options
    networks: dict[str, nn.Module]  # the same ones in float64


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    folder = tmp_path_factory.mktemp("weights")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks as small as these spend their time waiting for the other threads
    networks, weights = {}, {}
    torch.manual_seed(5)
    for name, stem in TINY.weights.items():
        network = (
            UNetEstimator(TINY.estimator)
            if name == "estimator" and TINY.estimator
            else UNet(PRIOR if name == "tem" else getattr(TINY, name))
        )
        with torch.no_grad():  # initial weights make residual networks nearly linear
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            if isinstance(network, UNet):
                network.get_parameter("net.conv_out.weight").mul_(0.5)
        sha256 = save_weights(parameters_of(network), {}, folder / f"{stem}.safetensors")
        load_weights(network, folder / f"{stem}.safetensors")  # rounded to the file's half precision
        networks[name], weights[name] = network.double().eval(), {"file": f"{stem}.safetensors", "sha256": sha256}

    def load(**options: Any) -> DiffBFR:
        resolved = ResolvedMethod("diffbfr", TINY, replace(TINY.options, **options), weights, "")  # type: ignore[type-var]
        return DiffBFR(resolved, "cpu")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BFR_WEIGHTS", str(folder))
        yield Tiny(load, networks)
    torch.set_num_threads(threads)


def faces(n: int, first_seed: int = 0, size: int = SIZE) -> FaceBatch:
    generator = torch.Generator().manual_seed(n)
    images = (0.5 * torch.randn(n, 3, size, size, generator=generator)).clamp(-1, 1)
    return FaceBatch(tuple(f"face-{i}" for i in range(n)), images, tuple(range(first_seed, first_seed + n)))


def abar_at(t: float) -> float:
    """The noise of a timestep between two is their weighted geometric mean."""
    abars, below = linear_alphas_cumprod(), math.floor(t)
    above = min(below + 1, 999)
    return float(abars[below]) ** (1 - (t - below)) * float(abars[above]) ** (t - below)


@torch.inference_mode()
def chain(network: nn.Module, y: Tensor, timesteps: list[float], eps: Tensor, condition: list[Tensor]) -> Tensor:
    """DDIM with eta 0 from the noised y, written out."""
    x = math.sqrt(abar_at(timesteps[0])) * y + math.sqrt(1 - abar_at(timesteps[0])) * eps
    levels = [*(abar_at(t) for t in timesteps), 1.0]
    for t, (abar, abar_prev) in zip(timesteps, pairwise(levels), strict=True):
        predicted = network(torch.cat([x, *condition], 1), torch.full((len(x),), t, dtype=torch.float64))[:, :3]
        x_0 = ((x - math.sqrt(1 - abar) * predicted) / math.sqrt(abar)).clamp(-1, 1)
        x = math.sqrt(abar_prev) * x_0 + math.sqrt(1 - abar_prev) * predicted
    return x.clamp(-1, 1)


@torch.inference_mode()
def reference(
    tiny: Tiny,
    batch: FaceBatch,
    cascade: bool = True,
    texture: bool = True,
    truncated: bool = True,
    start: str = "lq",
    second: str = "diffusion",
    flow_share: float = 1.0,
) -> Tensor:
    """The three stages in float64, each face's draws from its own generator in the order of the stages."""
    generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds]

    def normal(side: int) -> Tensor:
        return torch.stack([torch.randn(3, side, side, generator=g) for g in generators]).double()

    lq = batch.images.double()
    face = lq
    if start == "estimate":
        face = (tiny.networks["estimator"]((lq + 1) / 2) * 2 - 1).clamp(-1, 1)
    if cascade:
        small, y = (resize(image, LOW).clamp(-1, 1) for image in (lq, face))
        timesteps = [130.0, 87.0, 43.0, 0.0] if truncated else [999.0, 666.0, 333.0, 0.0]
        low = chain(tiny.networks["irm_low"], y if truncated else 0 * y, timesteps, normal(LOW), [small])
        face = (face + resize(low - y, SIZE)).clamp(-1, 1)
    if second == "flow":
        x = face + 0.05 * normal(SIZE)
        for t in (1000.0, 750.0, 500.0, 250.0):
            x = x - 0.1 / 4 * tiny.networks["flow"](x, torch.full((len(x),), t, dtype=torch.float64))
        face = face + flow_share * (x.clamp(-1, 1) - face)
    else:
        face = chain(tiny.networks["irm_high"], face, [50.0, 25.0, 0.0], normal(SIZE), [face, lq])
    return chain(tiny.networks["tem"], face, [22.5, 0.0], normal(SIZE), []) if texture else face


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_the_stages_are_those_of_the_equations(tiny: Tiny, switches: dict[str, bool]) -> None:
    """float32 rounds by 2^-24; clipping at every step keeps that from growing: 1e-4 is a 78th of a grey level."""
    batch = faces(3)
    restored = tiny.load(**switches).restore(batch)
    assert (restored.ids, restored.seeds, restored.images.dtype) == (batch.ids, batch.seeds, torch.float32)
    torch.testing.assert_close(restored.images.double(), reference(tiny, batch, **switches), rtol=0, atol=1e-4)


def test_every_switch_changes_the_result(tiny: Tiny) -> None:
    batch = faces(1)
    results = [tiny.load(**switches).restore(batch).images for switches in SWITCHES]
    assert all(not torch.allclose(a, b, atol=1e-2) for i, a in enumerate(results) for b in results[:i])


def test_with_a_cover_the_second_chain_starts_where_the_first_models_change_says(tiny: Tiny) -> None:
    """A cover beyond every change ends at `start_high`; a smaller one starts lower, and elsewhere for each face."""
    batch = faces(2)
    common, highest, own = (tiny.load(cover=cover).restore(batch).images for cover in (0.0, 10.0, 0.3))
    torch.testing.assert_close(highest, common, rtol=0, atol=1e-5)
    assert all((own - common).abs().amax(dim=(1, 2, 3)) > 1e-3)


@pytest.mark.parametrize("options", [{"eta": 1.0}, {"sampler": "dpm++"}, {"cover": 2.0}], ids=str)
class TestDraws:
    def test_a_face_does_not_depend_on_its_batch(self, tiny: Tiny, options: dict[str, Any]) -> None:
        method, batch = tiny.load(**options), faces(4)
        together = method.restore(batch).images
        rows = zip(batch.ids, batch.images, batch.seeds, strict=True)
        alone = [method.restore(FaceBatch((i,), image[None], (seed,))).images for i, image, seed in rows]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)

    def test_a_face_depends_on_its_seed_and_on_nothing_else_that_is_drawn(
        self, tiny: Tiny, options: dict[str, Any]
    ) -> None:
        method = tiny.load(**options)
        first = method.restore(faces(1)).images
        torch.manual_seed(1234)
        assert torch.equal(method.restore(faces(1)).images, first)
        assert not torch.equal(method.restore(faces(1, first_seed=7)).images, first)


def test_a_corrected_face_is_the_small_one_with_the_detail_of_the_lq() -> None:
    lq = faces(2).images / 4
    small = resize(lq, LOW)
    assert torch.equal(corrected(lq, small), lq)  # nothing to correct
    torch.testing.assert_close(corrected(lq, small + 0.25), lq + 0.25, rtol=0, atol=1e-6)
    assert float(corrected(lq, small + 2).max()) == 1


def test_a_fraction_of_a_timestep_changes_the_texture_a_little(tiny: Tiny) -> None:
    base, near, far = (tiny.load(texture_timestep=t).restore(faces(1)).images for t in (22.0, 22.25, 30.0))
    assert 0 < (base - near).abs().mean() < (base - far).abs().mean() / 4


def test_a_face_of_another_size_is_resized_first(tiny: Tiny) -> None:
    large = faces(2, size=24)
    fitted = replace(large, images=resize(large.images, SIZE).clamp(-1, 1))
    method = tiny.load()
    assert torch.equal(method.restore(large).images, method.restore(fitted).images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_low": -1}, "expected start_low in 0..999, got -1"),
        ({"start_high": 1000}, "expected start_high in 0..999, got 1000"),
        ({"texture_timestep": math.nan}, "expected texture_timestep in 0..999, got nan"),
        ({"steps": 0}, "expected steps in 1..9 (start_low + 1), got 0"),
        ({"steps_high": 52}, "expected steps_high in 1..11 (start_high + 1), got 52"),
        ({"texture_timestep": 3.5, "steps_texture": 5}, "expected steps_texture in 1..4 (texture_timestep + 1), got 5"),
        ({"sampler": "ancestral"}, "unknown sampler 'ancestral'; known: ddim, dpm++"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
        ({"eta": 1.5}, "expected eta in [0, 1], got 1.5"),
        ({"cover": 2.0, "cascade": False}, "expected cascade or start estimate with a cover"),
        ({"cover": 21.0}, "expected cover in [0, 20], got 21.0"),
        ({"start": "noise"}, "unknown start 'noise'; known: lq, estimate"),
        ({"second": "sde"}, "unknown second 'sde'; known: diffusion, flow"),
        ({"flow_share": 0.0}, "expected flow_share above 0, at most 1, got 0.0"),
        ({"steps_flow": 0}, "expected steps_flow in 1..1000, got 0"),
        ({"truncated": False, "cascade": False}, "expected cascade where the chain is not truncated"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        DiffBFROptions(**options)


def test_the_flow_carries_on_a_regression_networks_face_alone() -> None:
    face128, _, ffhq512 = DIFFBFR
    with pytest.raises(UsageError, match="expected second diffusion with start lq"):
        face128.check(replace(face128.options, start="lq"))
    face128.check(replace(face128.options, start="lq", second="diffusion"))
    with pytest.raises(UsageError, match="expected second diffusion: ffhq512 has no flow"):
        ffhq512.check(replace(ffhq512.options, second="flow"))


@pytest.mark.parametrize("option", ["start_high", "texture_timestep"])
def test_a_chain_starts_no_higher_than_its_network_is_trained(option: str) -> None:
    preset = DIFFBFR[0]
    preset.check(preset.options)
    preset.check(replace(preset.options, **{option: 300}))
    with pytest.raises(UsageError, match=f"expected {option} <= 300, as far as that network of face128 is trained"):
        preset.check(replace(preset.options, **{option: 301}))


def test_the_presets_networks_have_the_sizes_they_should() -> None:
    """ffhq512: SR3's 128 px network; DifFace's without its variance, 6 more channels, 3 fewer: 3 x 3 weights to or from
    32 channels each, and 3 biases. face128: the prior's, the first model without its coarsest level."""
    with torch.device("meta"):
        count = {
            preset.name: [
                sum(p.numel() for p in UNet(config).parameters())
                for config in (preset.irm_low, preset.irm_high, preset.prior)
            ]
            for preset in DIFFBFR
        }
    extra, fewer = 9 * 32 * 6, 9 * 32 * 3 + 3
    assert count["ffhq512"] == [99_475_779, 159_788_454 + extra - fewer, 159_788_454]
    assert count["face128"] == [2_071_436 + 4 * 9 * 48 * 3, 3_163_724 + 4 * 9 * 48 * 6, 5_026_796]
