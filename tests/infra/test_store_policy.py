"""The policy of infra/terraform against a real S3 server: it is enough for a run, and all of it is needed."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from flows.restore_dataset import restore_without_prefect
from tasks.config.restore import RestoreRun
from tasks.storage.store import Store
from tasks.vacuum_run import vacuum_run
from tasks.verify_run import verify_run
from tests import support
from tests.infra.test_terraform import policy

pytestmark = pytest.mark.s3
OF_DESTINATION = (
    "ListBucket",
    "ListBucketMultipartUploads",
    "GetObject",
    "PutObject",
    "DeleteObject",
    "AbortMultipartUpload",
)


@dataclass
class Buckets:
    """A source and a destination of one user, to which another one has what the policy grants."""

    owner: Any
    source: str
    destination: str

    def allow_all_but(self, refused: str = "") -> None:
        for bucket, name in ((self.source, "scans"), (self.destination, "restored")):
            statements = []
            for statement in policy("store")["Statement"]:
                resources = [each.replace(f":{name}", f":{bucket}") for each in statement["Resource"]]
                resources = [each for each in resources if bucket in each]
                actions = [action for action in statement["Action"] if action != f"s3:{refused}" or name == "scans"]
                if resources and actions:
                    who = {"AWS": ["arn:aws:iam:::user/writer"]}
                    statements.append(statement | {"Principal": who, "Resource": resources, "Action": actions})
            document = json.dumps({"Version": "2012-10-17", "Statement": statements})
            self.owner.put_bucket_policy(Bucket=bucket, Policy=document)

    def write_as_another(self, folder: str) -> None:
        """A file, and an upload that is not completed: what one has put oneself one may read in any case."""
        self.owner.put_object(Bucket=self.destination, Key=f"{folder}/data/b.parquet", Body=b"y")
        self.owner.create_multipart_upload(Bucket=self.destination, Key=f"{folder}/data/c.parquet")


@pytest.fixture
def buckets(ceph: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Buckets:
    url = f"http://{ceph[0]}:{ceph[1]}"
    owner = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="bfr-test", aws_secret_access_key="bfr-test-secret", region_name="x"
    )
    names = [f"{kind}-{uuid.uuid4().hex}" for kind in ("scans", "restored")]
    for name in names:
        owner.create_bucket(Bucket=name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "writer")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "writer-secret")
    return Buckets(owner, *names)


def use(destination: Store) -> None:
    """All that the code ever asks of a destination."""
    destination.create("commits/a.json", b"{}")
    assert destination.create("commits/a.json", b"{ }") is False
    assert destination.replace("current.json", b"1", None)
    assert destination.replace("current.json", b"2", destination.info("current.json").version)
    destination.write("data/a.parquet", b"x")
    assert destination.read("data/b.parquet") == b"y"
    assert "data/a.parquet" in destination.list()
    for upload in destination.uploads():
        destination.remove(upload)
    destination.delete("data/a.parquet")


def test_a_run_has_what_it_needs_and_may_not_touch_the_source(buckets: Buckets, tmp_path: Path) -> None:
    file = support.write_parquet(tmp_path / "a.parquet", support.make_rows(4))
    buckets.owner.put_object(Bucket=buckets.source, Key="faces/a.parquet", Body=file.read_bytes())
    buckets.allow_all_but()
    source, destination = f"s3://{buckets.source}/faces", f"s3://{buckets.destination}/run"
    run = RestoreRun(source=source, destination=destination, method="passthrough", engine="local")
    restore_without_prefect(run)
    vacuum_run(destination)
    assert verify_run(destination)["ok"]
    buckets.write_as_another("other")
    use(Store(f"s3://{buckets.destination}/other"))
    with pytest.raises(PermissionError):
        Store(source).write("b.parquet", b"x")
    with pytest.raises(PermissionError):
        Store(source).delete("a.parquet")


@pytest.mark.parametrize("action", OF_DESTINATION)
def test_nothing_that_is_granted_could_be_left_out(buckets: Buckets, action: str) -> None:
    buckets.allow_all_but(action)
    buckets.write_as_another("run")
    with pytest.raises(PermissionError):
        use(Store(f"s3://{buckets.destination}/run"))
