"""`python -m bfr_models.training` on a bare GPU box: no Prefect, no Ray, no fsspec."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bfr_models.training.__main__ import main
from bfr_models.weights.files import read_card

BARE = """
import runpy, sys
for absent in ("prefect", "ray", "fsspec", "s3fs"):
    sys.modules[absent] = None  # importing it raises
runpy.run_module("bfr_models.training", run_name="__main__", alter_sys=True)
"""


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "BMP")
    return file.getvalue()


def test_help_names_the_arguments() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout and "python -m bfr_models.training" in done.stdout


@pytest.mark.long
def test_two_steps_train_and_leave_weights(tmp_path: Path) -> None:
    data = tmp_path / "faces.parquet"
    pq.write_table(pa.table({"image": [noise(seed) for seed in (0, 1, 67)]}), data)  # 67 is one that is held out
    out = tmp_path / "run"
    done = run("difface", "prior", "--data", data, "--out", out, "--steps", 2, "--batch-size", 1)
    assert done.returncode == 0, done.stderr
    assert "step 2  held out: eps_loss" in done.stdout
    card = read_card(out / "difface-face128-prior.safetensors")
    assert (card["steps"], card["recipe"]["batch_size"]) == (2, 1)


def test_a_mistake_is_one_line_and_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["difface", "prior", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    assert main() == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: expected a Parquet file or a folder of them") and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
