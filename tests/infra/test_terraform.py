"""Roles that may do what a run does, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.files import INFRA

FOLDER = INFRA / "terraform"
NAMES = {
    "source_bucket": "arn:aws:s3:::scans", "destination_bucket": "arn:aws:s3:::restored", "partition": "aws",
    "region": "eu-central-1", "account": "123456789012", "cluster": "bfr", "worker_role": "arn:aws:iam::1:role/worker",
}  # fmt: skip


def policy(name: str) -> dict[str, Any]:
    """A policy with its names filled in, as `templatefile` does."""
    text = (FOLDER / f"policies/{name}.json").read_text()
    text = text.replace("${jsonencode(instance_types)}", '["g6.2xlarge"]')
    for variable, value in NAMES.items():
        text = text.replace(f"${{{variable}}}", value)
    assert "${" not in text
    return json.loads(text)


def grants(name: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for statement in policy(name)["Statement"]:
        assert statement["Effect"] == "Allow"
        for action in statement["Action"]:
            for resource in statement["Resource"]:
                yield action, resource, statement.get("Condition", {})


def test_terraform_is_well_formed() -> None:
    terraform = shutil.which("tofu") or shutil.which("terraform")
    if terraform is None:
        pytest.skip("neither tofu nor terraform is installed")
    done = subprocess.run([terraform, "fmt", "-check", "-diff", FOLDER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_grant_is_a_wildcard() -> None:
    for name in ("store", "launcher"):
        for action, resource, condition in grants(name):
            assert "*" not in action
            assert resource != "*" or (action.startswith("ec2:Describe") and condition)


def test_the_store_is_granted_what_a_run_calls_and_no_more() -> None:
    """tasks/storage/store.py: list, read, put (with conditions, too), delete, find and abort dangling uploads."""
    by_resource: dict[str, set[str]] = {}
    for action, resource, _ in grants("store"):
        by_resource.setdefault(resource, set()).add(action.removeprefix("s3:"))
    assert by_resource == {
        "arn:aws:s3:::scans": {"ListBucket"},
        "arn:aws:s3:::scans/*": {"GetObject"},
        "arn:aws:s3:::restored": {"ListBucket", "ListBucketMultipartUploads"},
        "arn:aws:s3:::restored/*": {"GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"},
    }


def test_a_head_starts_and_ends_nodes_of_its_own_cluster_alone() -> None:
    of_instances = [
        (action, condition) for action, resource, condition in grants("launcher") if resource.endswith(":instance/*")
    ]
    assert {action for action, _ in of_instances} == {"ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"}
    for _, condition in of_instances:
        assert "ray-cluster-name" in json.dumps(condition) or condition == {
            "StringEquals": {"ec2:CreateAction": "RunInstances"}
        }


def test_the_pool_starts_at_nothing_on_spot_machines() -> None:
    text = re.sub(r" +", " ", (FOLDER / "eks.tf").read_text())
    assert 'capacity_type = "SPOT"' in text and "min_size = 0" in text
    workers = (INFRA / "kubernetes/components/gpu/workers.yaml").read_text()
    for key in re.findall(r'key = "(\S+)"', text):
        assert f"key: {key}," in workers, "a taint that the pods do not tolerate"
    assert 'labels = { "bfr/pool" = "gpu" }' in text and "{bfr/pool: gpu}" in workers


def test_no_key_or_password_is_in_the_state() -> None:
    text = "".join(path.read_text() for path in FOLDER.glob("*.tf"))
    assert "aws_iam_access_key" not in text and "aws_secretsmanager_secret_version" not in text
