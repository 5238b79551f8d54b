"""SwinIR: the published shapes, and window attention against attention written out over the whole picture."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bfr_models.networks.configs import SwinIRConfig
from bfr_models.networks.swinir import SwinIR

TINY = SwinIRConfig(
    unshuffle=2, embed_dim=12, depths=(2,), num_heads=3, window_size=4, num_feat=8, drop_path=0.0, img_size=8
)


def test_the_published_network_has_the_published_size() -> None:
    """Its checkpoint: 15,792,587 parameters in 732 tensors, masks and position indices among them."""
    network = SwinIR(SwinIRConfig())
    assert sum(p.numel() for p in network.parameters()) == 15_792_587
    state = network.state_dict()
    assert len(state) == 732
    assert state["layers.7.residual_group.blocks.5.attn_mask"].shape == (64, 64, 64)
    assert state["layers.0.residual_group.blocks.0.attn.relative_position_bias_table"].shape == (225, 6)
    assert state["conv_first.1.weight"].shape == (180, 192, 3, 3)
    assert {"patch_embed.norm.weight", "conv_before_upsample.0.bias", "conv_up3.weight"} <= state.keys()


def dense_block(block: nn.Module, x: Tensor, window: int, shift: int) -> Tensor:
    """A Swin layer of one (H, W, C) picture: every pair of positions, those of different windows masked out.

    Windows start at `shift`, so that those cut by the border are smaller; nothing wraps around.
    """
    height, width, dim = x.shape
    attn = block.attn
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()

    def difference(a: Tensor) -> Tensor:
        return a[:, None] - a[None, :]

    same_window = difference((rows - shift) // window).eq(0) & difference((columns - shift) // window).eq(0)
    offset = (difference(rows) + window - 1) * (2 * window - 1) + difference(columns) + window - 1
    bias = attn.relative_position_bias_table[offset.where(same_window, 0)].permute(2, 0, 1)
    tokens = x.reshape(-1, dim)
    q, k, v = attn.qkv(block.norm1(tokens)).view(len(tokens), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    logits = q @ k.mT / math.sqrt(dim / attn.num_heads) + bias
    attended = logits.masked_fill(~same_window, -math.inf).softmax(-1) @ v
    tokens = tokens + attn.proj(attended.transpose(0, 1).reshape(-1, dim))
    tokens = tokens + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(tokens))))
    return tokens.view(height, width, dim)


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(8, 8), (16, 16), (4, 16), (12, 8)],
    ids=["the stored mask", "larger", "as many windows", "tall"],
)
def test_window_attention_is_dense_attention_inside_windows(height: int, width: int, shifted: bool) -> None:
    torch.manual_seed(0)
    block = SwinIR(TINY).layers[0].residual_group.blocks[int(shifted)].double()  # type: ignore[union-attr, index]
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)  # the bias of every relative position matters
    x = torch.randn(2, height, width, 12, dtype=torch.float64)
    expected = torch.stack([dense_block(block, picture, window=4, shift=2 * shifted) for picture in x])
    # float64: a few hundred roundings of 1e-16, of numbers up to some 100
    torch.testing.assert_close(block(x.flatten(1, 2), height, width), expected.flatten(1, 2), rtol=0, atol=1e-11)


def test_stochastic_depth_drops_a_branch_for_whole_faces_and_rescales_the_rest() -> None:
    torch.manual_seed(0)
    block = SwinIR(replace(TINY, drop_path=0.5)).layers[0].residual_group.blocks[1]  # type: ignore[union-attr, index]
    nn.init.zeros_(block.mlp.fc2.weight)  # only the attention branch is left
    x = torch.randn(64, 64, 12)
    branch = block.eval()(x, 8, 8) - x
    trained = block(x, 8, 8, torch.rand(64, 2)) - x
    kept = trained.flatten(1).any(1)
    assert 0 < kept.sum() < 64
    torch.testing.assert_close(trained[kept], 2 * branch[kept])


def test_stochastic_depth_grows_to_the_last_layer() -> None:
    config = replace(TINY, depths=(2, 3), drop_path=0.1)
    blocks = [block for layer in SwinIR(config).layers for block in layer.residual_group.blocks]
    assert [block.drop_path for block in blocks] == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])
