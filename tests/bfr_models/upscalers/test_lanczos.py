"""Enlarging by bands: the same as at once, of any kind of pixels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bfr_models.upscalers import lanczos


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize(("kind", "channels"), [(np.uint8, (3,)), (np.uint8, ()), (np.uint16, (4,)), (np.uint16, ())])
def test_bands_are_the_whole_image(
    factor: int, kind: type, channels: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanczos, "BAND_ROWS", 7)
    image = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (45, 31, *channels), kind)
    whole = cv2.resize(image, (factor * 31, factor * 45), interpolation=cv2.INTER_LANCZOS4)
    assert np.array_equal(lanczos.enlarge(image, factor), whole)


def test_pixel_centres_stay_on_pixel_centres_and_flat_is_flat() -> None:
    ramp = np.repeat(np.arange(20, 220, 10, dtype=np.uint8)[None], 12, axis=0)
    found = lanczos.enlarge(ramp, 2).astype(float)
    expected = 20 + 10 * ((np.arange(40) + 0.5) / 2 - 0.5)
    assert np.abs(found[6, 10:-10] - expected[10:-10]).max() <= 1
    assert (lanczos.enlarge(np.full((9, 9, 3), 77, np.uint8), 4) == 77).all()
    assert lanczos.enlarge(ramp, 1) is ramp
