"""The templates: one framing at every size, and two sets of points that agree on it."""

import numpy as np
import pytest

from bfr_models.faces.template import DLIB_5, FFHQ_5, at_size


def test_template_at_its_own_size_is_untouched() -> None:
    np.testing.assert_allclose(at_size(FFHQ_5, 512), FFHQ_5)


@pytest.mark.parametrize("size", [64, 150, 1024])
def test_picture_corners_stay_on_picture_corners(size: int) -> None:
    corners = np.array([(-0.5, -0.5), (511.5, 511.5)])
    np.testing.assert_allclose(at_size(corners, size), [(-0.5, -0.5), (size - 0.5, size - 0.5)])


def test_both_templates_place_the_eyes_alike() -> None:
    right, left = DLIB_5[0:2].mean(axis=0), DLIB_5[2:4].mean(axis=0)
    np.testing.assert_allclose([left, right], FFHQ_5[:2], atol=8)


def test_dlib_nose_base_lies_between_nose_tip_and_mouth() -> None:
    assert FFHQ_5[2, 1] < DLIB_5[4, 1] < FFHQ_5[3:, 1].mean()
