"""Near-duplicates are copies of a picture, never two people: the marks of what rows are compared by."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bfr_models.errors import UsageError
from bfr_models.faces.recognisers import DLIB
from tasks.curation.dedupe_scale import SCALES
from tasks.curation.looks import PERCEPTUAL
from tasks.curation.row_vectors import perceptual_vector
from tests.tasks.curation.curated import curated, with_features


def test_auto_takes_the_mark_of_what_is_compared(hostile_run: Path, tmp_path: Path) -> None:
    record, rows = curated(hostile_run, tmp_path, dedupe="auto", by="n")
    assert record["dedupe"]["look"] == "perceptual"
    assert record["dedupe"]["threshold"] == SCALES[PERCEPTUAL].threshold
    assert not {4, 5} & {row["n"] for row in rows}  # copies of 6


@pytest.mark.parametrize("threshold", [0.5, 0.95])
def test_a_threshold_at_which_people_are_alike_is_refused(hostile_run: Path, tmp_path: Path, threshold: float) -> None:
    """0.956 is the cosine of a man and a woman, by their aligned faces."""
    with pytest.raises(UsageError, match=rf"at least 0\.97 by perceptual .*found {threshold}; use --dedupe auto"):
        curated(hostile_run, tmp_path, dedupe=threshold, by="n")
    assert not (tmp_path / "out").exists()


def test_auto_compares_by_what_was_measured(hostile_run: Path, tmp_path: Path) -> None:
    run, _, _ = with_features(hostile_run, tmp_path / "run")
    with pytest.raises(UsageError, match="expected a number for --dedupe by inception"):
        curated(run, tmp_path, dedupe="auto", dedupe_by="inception", by="n")
    record, _ = curated(run, tmp_path, dedupe="auto", by="n")
    assert record["dedupe"]["look"] == "perceptual"


@pytest.mark.parametrize("name", [DLIB, PERCEPTUAL])
def test_the_marks_are_in_order(name: str) -> None:
    scale = SCALES[name]
    assert scale.strangers < scale.threshold < scale.copies


def test_copies_of_a_real_portrait_are_above_the_mark_and_another_person_is_below() -> None:
    data = pytest.importorskip("skimage.data")
    cbook = pytest.importorskip("matplotlib.cbook")
    one = Image.fromarray(data.astronaut()).crop((150, 20, 310, 180))
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        other = Image.open(file).convert("RGB").crop((130, 60, 390, 320))
    one.resize((80, 80)).save(small := io.BytesIO(), "JPEG", quality=40)
    vector, copy, stranger = (
        perceptual_vector(np.asarray(image.convert("RGB"))) for image in (one, Image.open(small), other)
    )
    scale = SCALES[PERCEPTUAL]
    assert vector @ copy >= scale.threshold
    assert vector @ stranger < scale.strangers
