"""The view that a restored and a clean face are compared in."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from bfr_models.training.identity_loss import one_view
from tests.draws import draws_of

SIDE = 64


def places() -> torch.Tensor:
    """Pictures whose pixels say where they are: x and y in [-1, 1], and 1."""
    line = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).expand(4, -1, -1, -1)


@given(seed=st.integers(0, 2**31))
def test_both_faces_are_seen_from_the_same_place_which_is_near_and_each_pair_from_another(seed: int) -> None:
    view, doubled = one_view(places(), 2 * places(), draws_of(4, seed))
    side = view.shape[-1]
    assert view.shape == (4, 3, side, side) and 5 * SIDE // 8 <= side <= SIDE
    torch.testing.assert_close(2 * view, doubled)
    torch.testing.assert_close(view[:, 2], torch.ones(4, side, side))  # no border is seen
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    moved = (view[:, :2] - torch.stack([x, y])).abs()
    inner = slice(side // 4, -side // 4)  # half the side: turned by 0.1, scaled by 0.08, shifted by 0.06 at most
    assert moved[:, :, inner, inner].amax() < 0.06 + 0.5 * (0.1 + 0.08 + 0.1 * 0.08) + 1e-3
    assert len({round(float(image.mean()), 6) for image in view[:, 0]}) > 1


def test_a_lattice_has_no_alignment_to_please() -> None:
    """The places of a pattern of 4 px, seen again and again, are all alike."""
    lattice = torch.zeros(1, 3, SIDE, SIDE)
    lattice[..., ::4, ::4] = 1
    seen = torch.zeros(16)
    for step in range(200):
        view = one_view(lattice, lattice, draws_of(1, step))[0][0, 0]
        seen += view[:32, :32].reshape(8, 4, 8, 4).mean(dim=(0, 2)).flatten()
    assert seen.max() / seen.min() < 1.2


def test_gradients_come_back_to_the_image() -> None:
    face = torch.rand(2, 3, SIDE, SIDE, requires_grad=True)
    restored, gt = one_view(face, torch.zeros(2, 3, SIDE, SIDE), draws_of(2))
    (restored - gt).square().sum().backward()
    assert face.grad is not None and face.grad[:, :, 8:-8, 8:-8].ne(0).all()
