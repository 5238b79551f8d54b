"""A real run that is given every kind of secret: afterwards no file, log or command line holds one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq
import pytest

from bfr_models.errors import BfrError
from flows.restore_dataset import restore_dataset, restore_without_prefect
from tasks.config.restore import RestoreRun
from tasks.storage.redaction import redact_text, with_secrets, without_secrets
from tasks.storage.store import Store
from tests import support
from tests.faults.conftest import Address

ROWS = 8
IN_URL = {"password": "hunter2-of-the-url", "signature": "5ignature-of-the-1ink"}
IN_ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "secret-key-of-the-bucket",
    "AWS_SESSION_TOKEN": "session-token-of-the-bucket",
    "PREFECT_API_KEY": "pnu_key-of-the-server",
}
SECRETS = [*IN_URL.values(), *IN_ENVIRONMENT.values()]


@pytest.fixture
def source(moto: Address, monkeypatch: pytest.MonkeyPatch) -> str:
    """A web address with user, password and signature; the same file is in an empty bucket."""
    for name, secret in IN_ENVIRONMENT.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "bfr-test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{moto[0]}:{moto[1]}")
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    if fs.exists("secrets"):
        fs.rm("secrets", recursive=True)
    fs.mkdir("secrets")
    with tempfile.TemporaryDirectory() as folder:
        file = support.write_parquet(Path(folder) / "a.parquet", support.make_rows(ROWS))
        Store("s3://secrets/src").write("a.parquet", file.read_bytes())
    user = f"reader:{IN_URL['password']}@{moto[0]}:{moto[1]}"
    return f"http://{user}/secrets/src/a.parquet?X-Amz-Signature={IN_URL['signature']}"


class Watcher:
    """The command lines of all processes below one, for as long as it lives."""

    def __init__(self, pid: int) -> None:
        self.seen: dict[int, str] = {}
        self._top = psutil.Process(pid)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._top.is_running():
            with suppress(psutil.Error):  # of one that has gone
                for process in self._top.children(recursive=True):
                    self.seen[process.pid] = " ".join(process.cmdline()) or self.seen.get(process.pid, "")
            time.sleep(0.1)


def kept(folder: Path) -> Iterator[str]:
    """The places in a folder's files that hold a secret."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            yield from (f"{secret} in {path}" for secret in SECRETS if secret.encode() in data)


@pytest.fixture
def session() -> Iterator[Path]:
    """A folder for Ray's sockets, which need a short path, and its logs."""
    with tempfile.TemporaryDirectory(prefix="bfr-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.long
def test_nothing_keeps_a_secret(source: str, session: Path, tmp_path: Path) -> None:
    home = Path(os.environ["PREFECT_HOME"])
    outside = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PREFECT_API_URL")}
    outside |= {"RAY_TMPDIR": str(session), "PYTHONPATH": str(support.ROOT)}
    command = [str(Path(sys.executable).with_name("bfr")), "restore", source, "s3://secrets/dst"]
    process = subprocess.Popen(
        [*command, "--method", "passthrough", "--actors", "1", "--debug"],
        cwd=tmp_path,
        env=outside,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watcher = Watcher(process.pid)
    try:
        output, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert f"{ROWS} rows in" in output
    names = " ".join(watcher.seen.values())
    assert all(name in names for name in ("gcs_server", "raylet", "WorkerActor", "embedded_server")), names
    # The driver is a fork of the command, with the arguments that were typed.
    others = [line for line in watcher.seen.values() if " ".join(command) not in line]
    assert not [line for line in others if any(secret in line for secret in SECRETS)]
    assert not [secret for secret in SECRETS if secret in output + errors]
    assert list(home.rglob("*.db")) and list(session.rglob("raylet.out"))
    assert not [*kept(home), *kept(session)]
    assert stored("s3://secrets/dst") >= {"plan", "commits", "data", "report", "run.json"}


def stored(destination: str) -> set[str]:
    """The folders of a run, which hold no secret."""
    store = Store(destination)
    for path in store.list():
        data = store.read(path)
        if path.endswith(".parquet"):  # compressed
            data += repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()
        assert not [secret for secret in SECRETS if secret.encode() in data], path
    return {path.partition("/")[0] for path in store.list()}


def test_a_link_that_was_signed_anew_resumes_the_run(source: str) -> None:
    settings = {"input": "faces", "method": "passthrough", "engine": "local", "shard_rows": 4}
    run = RestoreRun(source=source, destination="s3://secrets/dst", **settings)
    shards = list(support.plan_run(run).todo)
    assert {shard.source for shard in shards} == {source} and {shard.name for shard in shards} == {"a.parquet"}
    anew = run.model_copy(update={"source": source.replace(IN_URL["signature"], "another")})
    resumed = list(support.plan_run(anew).todo)
    assert [shard.id for shard in resumed] == [shard.id for shard in shards]
    assert {shard.source for shard in resumed} == {anew.source}
    assert restore_without_prefect(anew)["totals"]["restored"] == ROWS
    stored(run.destination)


@pytest.mark.usefixtures("prefect_server")
def test_an_error_on_its_way_to_others_loses_its_secrets(source: str) -> None:
    run = RestoreRun(source=source, destination="s3://secrets/dst", method="passthrough", engine="local")
    with pytest.raises(BfrError) as refused:
        restore_dataset(
            run.model_copy(update={"column": "picture", "source": source.replace("a.parquet", "b.parquet")})
        )
    told = "".join(traceback.format_exception(refused.value))
    assert "ClientResponseError: 404" in told and "b.parquet" in told
    assert not [secret for secret in SECRETS if secret in told]


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("https://me:pw@host:8/a/b.parquet?sig=1", "https://host:8/a/b.parquet"),
        ("sftp://me:pw@host/a/b?c#d.parquet", "sftp://host/a/b?c#d.parquet"),
        ("s3://bucket/a@b/c?d.parquet", "s3://bucket/a@b/c?d.parquet"),
        ("/data/me:pw@host/a?b.parquet", "/data/me:pw@host/a?b.parquet"),
    ],
)
def test_what_is_taken_from_a_url_comes_back(url: str, bare: str) -> None:
    assert without_secrets(url) == bare
    assert with_secrets(bare, url) == url
    assert with_secrets(bare, bare) == bare


def test_files_of_a_folder_get_the_secrets_of_the_folder_and_strangers_none() -> None:
    assert with_secrets("sftp://host/a/b.parquet", "sftp://me:pw@host/a") == "sftp://me:pw@host/a/b.parquet"
    assert with_secrets("sftp://host2/a/b.parquet", "sftp://me:pw@host/a") == "sftp://host2/a/b.parquet"


def test_messages_of_others_are_redacted() -> None:
    text = "ConnectionError: cannot reach 'https://me:pw@host/a?sig=1', nor http://[bad?sig=1; see s3://bucket/key"
    assert redact_text(text) == (
        "ConnectionError: cannot reach 'https://host/a', nor a URL that cannot be read see s3://bucket/key"
    )


@pytest.mark.parametrize("password", ["it's", 'say "x"', "a b", "<a>", "a@b c", "a:b'@"])
def test_a_password_is_redacted_whole_whatever_it_is_made_of(password: str) -> None:
    text = f"cannot reach 'https://me:{password}@host:8/a?sig=1', nor http://other:80/b; ask me@example.org"
    assert redact_text(text) == "cannot reach 'https://host:8/a', nor http://other:80/b; ask me@example.org"


def test_a_long_message_of_a_stranger_is_redacted_in_no_time() -> None:
    began = time.thread_time()
    assert redact_text("a" * 10**6 + " https://me:pw@host/a?sig=1").endswith("a https://host/a")
    assert time.thread_time() - began < 5
