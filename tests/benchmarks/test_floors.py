"""Floors under what speed was won, so that it is not lost unseen: ratios of CPU time in one process, taken in turns.

Each floor is about half of what was measured, since machines differ and CI's do other things, too.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from bfr_models.faces import paste as pasting
from bfr_models.faces.paste import paste
from bfr_models.registry import load_method, resolve_method
from bfr_models.types import FaceBatch
from tests.support import ROOT, portrait

pytestmark = pytest.mark.long
ROUNDS = 5


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """CPU time of one thread is not that of several that wait for each other."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def least(ways: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """The least CPU seconds of each, in this thread."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.thread_time()
            way()
            found[name] = min(found[name], time.thread_time() - began)
    return found


def test_a_batch_of_eight_faces_takes_less_than_eight_faces() -> None:
    method = load_method(resolve_method("estimator", "face128"))
    images = torch.rand((8, 3, 128, 128), generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = FaceBatch(tuple("abcdefgh"), images, tuple(range(8)))
    one = FaceBatch(("a",), images[:1], (0,))
    took = least({"batch": lambda: method.restore(batch), "one": lambda: method.restore(one)})
    assert took["batch"] < 8 * took["one"]


def test_pasting_a_face_coarser_than_its_photo_takes_half_of_what_a_filter_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photo, face = np.zeros((1200, 1200, 3), np.uint8), np.full((512, 512, 3), 200, np.uint8)
    matrix = np.array([(0.5, 0.05, 0.0), (-0.05, 0.5, 0.0)])

    def filtered() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(pasting, "COARSE", 0.0)
            paste(photo, [(face, matrix, 1.0)])

    took = least({"ours": lambda: paste(photo, [(face, matrix, 1.0)]), "filtered": filtered})
    assert took["ours"] < 0.5 * took["filtered"]


def test_a_worker_takes_half_of_what_a_script_takes_to_read_and_write_pngs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All of a worker, of 512 px faces and beside its method, against Pillow alone."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import engine

    grain = np.random.default_rng(0).normal(0, 2, (512, 512, 1))
    face = (portrait(1, 512) + grain).clip(0, 255).astype(np.uint8)
    Image.fromarray(face).save(png := io.BytesIO(), "PNG")
    rows = {"id": [str(n) for n in range(96)], "image": [{"bytes": png.getvalue(), "path": None}] * 96}
    pq.write_table(pa.table(rows), source := tmp_path / "faces.parquet", row_group_size=32, compression="none")

    def script() -> None:
        pixels = np.asarray(Image.open(io.BytesIO(png.getvalue())).convert("RGB"))
        Image.fromarray(pixels).save(io.BytesIO(), "PNG")

    settings = {"method": "passthrough", "preset": "ffhq512", "input": "faces", "format": "png"}
    assert engine.of_worker(source, settings) / 1000 < 0.5 * least({"script": script})["script"]
