"""A profile is a set of conditions with thresholds for the recogniser that scored the run."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bfr_models.faces.recognisers import ADAFACE
from tasks.curation.profiles import profile_conditions
from tests import support
from tests.tasks.curation.curated import curated


@pytest.fixture(scope="module")
def scored(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with cosines of changed, similar and nearly equal faces; row 5 is blurred."""
    run = tmp_path_factory.mktemp("scored") / "dst"
    shutil.copytree(embedded, run)
    (path,) = (run / "data").iterdir()
    rows = pq.read_table(path).to_pylist()
    for row, similarity in zip(rows, (0.87, 0.88, 0.93, 0.94, 1.0, 1.0), strict=True):
        row["identity_similarity"] = similarity
        row["faces"][0]["sharpness"] = 2.4 if row["n"] == 5 else 2.5
    pq.write_table(support.pa.Table.from_pylist(rows, schema=pq.read_schema(path)), path)
    return run


@pytest.mark.parametrize(("profile", "kept"), [("archive", [1, 2, 3, 4, 5]), ("training-set", [3, 4])])
def test_a_profile_keeps_the_rows_that_pass_its_gates(
    profile: str, kept: list[int], scored: Path, tmp_path: Path
) -> None:
    _, rows = curated(scored, tmp_path, profile=profile)
    assert [row["n"] for row in rows] == kept


@pytest.mark.parametrize(("profile", "threshold"), [("archive", 0.3), ("training-set", 0.5)])
def test_the_profiles_know_adafaces_cosines(profile: str, threshold: float) -> None:
    assert profile_conditions(profile, ADAFACE)[-1] == f"identity_similarity >= {threshold}"
