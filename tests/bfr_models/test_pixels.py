"""uint8 and back without loss, and a resize that is Pillow's."""

import numpy as np
import pytest
import torch
from PIL import Image

from bfr_models.pixels import face_tensor, resize, to_tensor, to_uint8


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_grey_level_survives_the_way_to_a_tensor_and_back() -> None:
    image = np.arange(256 * 3, dtype=np.uint32).reshape(16, 16, 3).astype(np.uint8)
    tensor = to_tensor(image)
    assert (tensor.shape, tensor.dtype) == ((3, 16, 16), torch.float32)
    assert (float(tensor.min()), float(tensor.max())) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(tensor), image)


def test_a_mirrored_view_is_taken_as_it_is_seen() -> None:
    image = random_image(5, 7)
    np.testing.assert_array_equal(to_uint8(to_tensor(image[:, ::-1])), image[:, ::-1])


def test_levels_are_rounded_and_clipped() -> None:
    levels = torch.tensor([-40.0, 0.4, 0.6, 254.4, 254.6, 300.0])
    pixels = (levels / 127.5 - 1).view(1, 1, 6).expand(3, 1, 6)
    assert to_uint8(pixels)[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


def test_batches_keep_their_leading_dimensions() -> None:
    assert to_uint8(torch.zeros(2, 5, 3, 4, 6)).shape == (2, 5, 4, 6, 3)


@pytest.mark.parametrize("size", [(32, 32), (20, 77), (64, 48), (150, 130)])
def test_resize_is_the_antialiased_bicubic_of_pillow(size: tuple[int, int]) -> None:
    """In float32 both: a pixel is a sum of at most some 60 products of numbers below 2; it rounds by less than 1e-5."""
    image = random_image(64, 48)[..., 0].astype(np.float32) / 127.5 - 1
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))
    resized = resize(torch.from_numpy(image)[None, None], size)[0, 0]
    np.testing.assert_allclose(resized.numpy(), expected, rtol=0, atol=1e-5)


def test_a_picture_of_the_right_size_is_not_touched() -> None:
    images = torch.rand(1, 3, 16, 16)
    assert resize(images, 16) is images


@pytest.mark.parametrize("side", [40, 128, 300])
def test_an_aligned_face_of_any_size_becomes_the_methods_input(side: int) -> None:
    """Black and white squares overshoot in a bicubic resize: the face is clipped to its range."""
    squares = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((5, 5)))[..., None].repeat(3, axis=-1)
    image = np.asarray(Image.fromarray((squares * 255).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST))
    face = face_tensor(image, 128)
    assert face.shape == (3, 128, 128)
    assert (float(face.min()), float(face.max())) == (-1, 1)
