"""slurm/restore.sbatch, with commands in place of Slurm, Ray and bfr that write down how they are called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.infra.files import INFRA

COMMANDS = {
    "ray": 'echo "ray $*" >> "$CALLS"; [[ ! ${NO_RAY:-} ]] || exit 1; if [[ $1 == start ]]; then exec sleep 5; fi',
    # It ends once both parts of the cluster have been started, which go on by themselves.
    "bfr": 'until (($(grep -c "^ray start" "$CALLS") == 2)); do sleep 0.02; done; '
    'echo "bfr $* at $RAY_ADDRESS mode $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" >> "$CALLS"; exit "$CODE"',
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": 'if [[ $1 == show ]]; then printf "%s\\n" n1 n2 n3; else echo "scontrol $*" >> "$CALLS"; fi',
    "getent": 'echo "10.0.0.1 STREAM n1"',
}


def calls(tmp_path: Path, code: int, **variables: str) -> list[str]:
    """What the script called, in order."""
    (tmp_path / "bin").mkdir()
    for name, body in COMMANDS.items():
        file = tmp_path / "bin" / name
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "BFR_HOME": str(tmp_path), "CALLS": str(tmp_path / "calls"),
        "CODE": str(code), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_CPUS_PER_TASK": "16",
    }  # fmt: skip
    command = [str(INFRA / "slurm/restore.sbatch"), "s3://scans", "s3://restored", "--method", "difface"]
    done = subprocess.run(["bash", *command], env=environment | variables, check=False, timeout=60)
    assert done.returncode == code
    assert not list(tmp_path.glob(".bfr-*")), "the token outlives its job"
    return (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("gpus", "workers"), [("4", "--actors 12 --gpus-per-actor 1"), ("", "--actors 3")], ids=["gpus", "cpus"]
)
def test_a_worker_for_each_gpu_or_node(tmp_path: Path, gpus: str, workers: str) -> None:
    found = calls(tmp_path, 0, **{"SLURM_GPUS_ON_NODE": gpus} if gpus else {})
    assert f"bfr restore s3://scans s3://restored --method difface {workers} at 10.0.0.1:20007 mode 600" in found
    starts = [call for call in found if call.startswith("ray start")]
    assert len(starts) == 2 and all(f"--num-gpus={gpus or 0} " in call for call in starts)


def test_a_job_whose_ray_does_not_start_ends(tmp_path: Path) -> None:
    found = calls(tmp_path, 1, NO_RAY="1")
    assert not [call for call in found if call.startswith("bfr")]


def test_an_interrupted_run_is_queued_again(tmp_path: Path) -> None:
    assert "scontrol requeue 7" in calls(tmp_path, 130)
