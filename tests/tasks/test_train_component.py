"""Training by workers of a cluster: the loss curve of one process, though one of them is killed on the way."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pytest

from bfr_models.errors import UsageError
from tasks.config.train import TrainRun
from tasks.storage.store import Store
from tasks.train_component import train_component
from tests import support
from tests.small_trainings import rounding
from tests.support import make_rows, write_parquet

STEPS, BATCH = 8, 4
KILL_FROM = 2  # steps in the last checkpoint


def training(folder: str, data: str, **changes: Any) -> TrainRun:
    settings = {
        "method": "diffbfr", "component": "irm_low", "data": data, "out": folder, "steps": STEPS, "batch_size": BATCH,
        "precision": "fp32", "device": "cpu", "loaders": 0, "log_every": 1, "evaluate_every": STEPS,
        "checkpoint_minutes": 0,
    }  # fmt: skip
    return TrainRun(**settings | changes)


def lines(store: Store, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.read(name).splitlines()]


def test_what_cannot_be_trained_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a batch of as many faces in each part of each share, 3 x 1 in all"):
        train_component(training(str(tmp_path / "out"), str(tmp_path), workers=3))
    with pytest.raises(UsageError, match=r"expected files at .*, found nothing"):
        train_component(training(str(tmp_path / "out"), str(tmp_path), workers=2))


@pytest.mark.long
@pytest.mark.s3
def test_two_workers_of_which_one_is_killed_train_the_curve_of_one_process(
    ceph: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faces from S3 and results to S3. All workers go on from the last checkpoint: each loss is there once."""
    server = {"AWS_ENDPOINT_URL": f"http://{ceph[0]}:{ceph[1]}", "AWS_ACCESS_KEY_ID": "bfr-test"}
    for name, value in (server | {"AWS_SECRET_ACCESS_KEY": "bfr-test-secret", "OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    bucket = f"s3://{uuid.uuid4().hex}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket[5:])
    parquet = write_parquet(tmp_path / "faces.parquet", make_rows(60), group_rows=10)
    Store(f"{bucket}/faces").write("faces.parquet", parquet.read_bytes())
    one, two = Store(f"{bucket}/one"), Store(f"{bucket}/two")
    train_component(training(one.url(), f"{bucket}/faces"))

    settings = training(two.url(), f"{bucket}/faces", workers=2).model_dump(exclude={"method", "component"})
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in settings.items()
        if value is not None and value is not False
    ]
    command = [*support.BFR, "train", "diffbfr", "irm_low", *flags, "--json"]
    with (tmp_path / "said").open("w") as said:
        driver = psutil.Popen(command, stdout=subprocess.PIPE, stderr=said)
    try:
        kill_a_worker(driver, two)
        printed, _ = driver.communicate()
    finally:
        if driver.is_running():
            driver.terminate()
    said_at_last = (tmp_path / "said").read_text()
    assert driver.returncode == 0, said_at_last[-3000:]
    assert "resuming at step" in said_at_last
    expected, found = (lines(store, "progress.jsonl") for store in (one, two))
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(1, STEPS + 1))
    card = json.loads(two.read("diffbfr-face128-irm_low.json"))
    rate = max(line["learning_rate"] for line in expected)
    apart = rounding(STEPS, rate, card["parameters"], BATCH * 3 * 64**2)
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in expected], abs=apart)
    assert apart < 1e-3 < abs(expected[0]["loss"] - expected[1]["loss"])
    assert json.loads(printed)["weights"] == two.url("diffbfr-face128-irm_low.safetensors")
    assert card["data"] == json.loads(one.read("diffbfr-face128-irm_low.json"))["data"]


def kill_a_worker(driver: psutil.Popen, store: Store) -> None:
    """Kills one of its workers of Ray Train, as soon as some steps are in a checkpoint."""
    while not store.exists("progress.jsonl") or len(lines(store, "progress.jsonl")) < KILL_FROM:
        assert driver.poll() is None
        time.sleep(0.05)
    workers = [child for child in driver.children(recursive=True) if "RayTrainWorker" in "".join(child.cmdline())]
    workers[-1].kill()
