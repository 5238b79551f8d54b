"""The VQGAN's codebook against brute force and diffusers, and the latents' networks."""

from __future__ import annotations

import math

import pytest
import torch

from bfr_models.networks.configs import LatentMaskConfig
from bfr_models.networks.diffusers_compat import diffusers_module
from bfr_models.networks.latent_networks import LatentMask, LatentScore
from bfr_models.networks.vqgan import VQGAN, perplexity
from tests.clr_face import SIZE, TINY


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    torch.manual_seed(0)
    network = VQGAN(TINY.vqgan)
    with torch.no_grad():
        network.codebook.copy_(torch.randn(TINY.vqgan.codes, 3))
    return network


def test_a_latent_is_a_quarter_of_the_picture(vqgan: VQGAN) -> None:
    image = torch.rand(2, 3, SIZE, SIZE) * 2 - 1
    made = vqgan(image)
    assert made.latent.shape == made.quantised.shape == (2, 3, SIZE // 4, SIZE // 4)
    assert made.codes.shape == (2, SIZE // 4, SIZE // 4) and made.image.shape == image.shape
    assert TINY.vqgan.factor == 4


def test_codes_and_commitment_are_diffusers_without_its_old_mistake(vqgan: VQGAN) -> None:
    """`legacy=False`: beta weighs the encoder's term. 3 x 40 x 40 places are searched in more parts than one."""
    z = torch.randn(3, 3, 40, 40)
    reference = diffusers_module("models.autoencoders.vae").VectorQuantizer(
        TINY.vqgan.codes, 3, beta=0.25, legacy=False
    )
    reference.embedding.weight = vqgan.codebook
    expected, loss, (_, _, codes) = reference(z)
    quantised, numbers = vqgan.quantise(z)
    assert torch.equal(numbers.flatten(), codes)
    torch.testing.assert_close(quantised, expected, rtol=0, atol=1e-6)
    ours = 0.25 * (z - quantised.detach()).square().mean() + (quantised - z).square().mean()
    torch.testing.assert_close(ours, loss)


def test_half_precision_around_it_does_not_change_the_search(vqgan: VQGAN) -> None:
    z = torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vqgan.quantise(z)[1], vqgan.quantise(z)[1])
        inside = vqgan.quantise(z)[1]
    assert torch.equal(inside, vqgan.quantise(z)[1])


def test_gradients_pass_straight_through_the_codes(vqgan: VQGAN) -> None:
    image = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    made = vqgan(image)
    (gradient,) = torch.autograd.grad(made.image.square().sum(), made.latent, retain_graph=True)
    start = made.quantised.detach().requires_grad_()
    (direct,) = torch.autograd.grad(vqgan.decode(start).square().sum(), start)
    # float32 rounds each of a sum's terms: what is left of them may be small
    torch.testing.assert_close(gradient, direct, rtol=0, atol=1e-5 * float(direct.abs().max()))


def test_saving_memory_gives_the_same_gradients(vqgan: VQGAN) -> None:
    z = torch.randn(1, 3, 8, 8, requires_grad=True)
    saving = VQGAN(TINY.vqgan)
    saving.load_state_dict(vqgan.state_dict())
    saving.save_memory()
    gradients = [torch.autograd.grad(n.decode(z).square().sum(), z)[0] for n in (vqgan, saving)]
    torch.testing.assert_close(gradients[1], gradients[0])


class TestPerplexity:
    def test_one_code_has_one(self) -> None:
        assert perplexity(torch.full((2, 4, 4), 7), 16) == pytest.approx(1)

    @pytest.mark.parametrize("used", [2, 16])
    def test_codes_used_alike_have_their_number(self, used: int) -> None:
        assert perplexity(torch.arange(64).view(1, 8, 8) % used, 16) == pytest.approx(used)

    def test_it_is_the_exponential_of_the_entropy(self) -> None:
        codes = torch.tensor([0, 0, 0, 1])
        assert perplexity(codes, 5) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


class TestLatents:
    def test_measured_latents_are_normalised_and_come_back(self) -> None:
        network = LatentScore(TINY.score, 3)
        offset, spread = torch.tensor([1.0, -2.0, 0.3]).view(3, 1, 1), torch.tensor([0.5, 3.0, 1.0]).view(3, 1, 1)
        latents = torch.randn(50, 3, 8, 8) * spread + offset
        with torch.no_grad():
            network.measure(latents)
        z = network.normalise(latents)
        # rounded to half precision: a relative 2^-11 of mean and std
        assert z.mean((0, 2, 3)).abs().max() < 3 * 2**-11 and (z.std((0, 2, 3)) - 1).abs().max() < 2**-10
        torch.testing.assert_close(network.denormalise(z), latents, rtol=1e-5, atol=1e-5)

    def test_the_statistics_are_weights_that_no_optimiser_moves(self) -> None:
        network = LatentScore(TINY.score, 3)
        fixed = {name for name, p in network.named_parameters() if not p.requires_grad}
        assert fixed == {"mean", "std"}

    def test_a_mask_starts_half_open_and_sees_both_latents(self) -> None:
        torch.manual_seed(0)
        network = LatentMask(LatentMaskConfig(channels=8, layers=3), 3)
        degraded, estimate = torch.randn(2, 2, 3, 8, 8)
        assert torch.equal(network(degraded, estimate), torch.full((2, 1, 8, 8), 0.5))
        with torch.no_grad():
            network.layers[-1].weight.normal_()  # type: ignore[union-attr, operator]
        mask = network(degraded, estimate)
        assert mask.min() > 0 and mask.max() < 1
        assert not torch.equal(network(degraded + 1, estimate), mask)
        assert not torch.equal(network(degraded, estimate + 1), mask)
