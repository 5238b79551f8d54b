"""A batch that does not fit together is refused where it is made."""

import pytest
import torch

from bfr_models.types import FaceBatch


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 8, 8, 3), torch.zeros(3, 8, 8), torch.zeros(2, 3, 8, 8).double(), torch.zeros(2, 3, 8, 8).byte()],
    ids=["HWC", "no batch", "float64", "uint8"],
)
def test_images_of_another_layout_or_dtype_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\) float32, got"):
        FaceBatch(("a", "b"), images, (1, 2))


def test_every_image_has_one_id_and_one_seed() -> None:
    with pytest.raises(ValueError, match="got 1 ids, 2 seeds, 2 images"):
        FaceBatch(("a",), torch.zeros(2, 3, 8, 8), (1, 2))


def test_other_pixels_keep_ids_and_seeds() -> None:
    batch = FaceBatch(("a", "b"), torch.zeros(2, 3, 8, 8), (1, 2))
    other = batch.with_images(torch.ones(2, 3, 16, 16))
    assert (other.ids, other.seeds, other.images.shape[-1], len(other)) == (("a", "b"), (1, 2), 16, 2)
