"""A window of rows holds a limited number of pixels, or a single image."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.worker import windows
from tasks.worker.read_shard import Row


class Headers:
    """A shard of images known by their headers only."""

    def __init__(self, pixels: list[int], gts: list[int] | None = None) -> None:
        self.pixels, self.gts = pixels, gts

    def image_bytes(self, row: Row) -> Any:
        return self.pixels[row.index]

    def gt_bytes(self, row: Row) -> Any:
        return self.gts[row.index] if self.gts else 0

    def mask_bytes(self, row: Row) -> Any:
        return 0


@pytest.mark.parametrize(
    ("megapixels", "expected"),
    [
        ([10, 10, 10, 10], [[0, 1, 2], [3]]),
        ([108, 108, 1, 1], [[0], [1], [2, 3]]),
        ([1, 108, 1], [[0], [1], [2]]),
        ([32, 1], [[0], [1]]),
        ([0, 0, 0], [[0, 1, 2]]),
        ([], []),
    ],
)
def test_a_window_is_limited_by_its_pixels_or_holds_one_image(
    megapixels: list[int], expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "count_pixels", lambda data: data * 1_000_000)
    rows = (Row(i, str(i), 0) for i in range(len(megapixels)))
    found = list(windows.windows(Headers(megapixels), rows))  # type: ignore[arg-type]
    assert [[row.index for row in window.rows] for window in found] == expected
    assert [window.is_large for window in found] == [megapixels[rows[0]] > 32 for rows in expected]


def test_a_window_is_planned_for_images_as_large_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "count_pixels", lambda data: data * 1_000_000)
    rows = (Row(i, str(i), 0) for i in range(4))
    found = list(windows.windows(Headers([2, 5, 5, 12]), rows, scale=2))  # type: ignore[arg-type]
    assert [len(window.rows) for window in found] == [2, 1, 1] and [window.is_large for window in found] == [0, 0, 1]


def test_a_ground_truth_that_is_larger_than_its_image_counts_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "count_pixels", lambda data: data * 1_000_000)
    rows = (Row(i, str(i), 0) for i in range(4))
    found = list(windows.windows(Headers([10, 10, 1, 1], [10, 10, 49, 1]), rows))  # type: ignore[arg-type]
    assert [len(window.rows) for window in found] == [2, 1, 1] and [window.is_large for window in found] == [0, 1, 0]
