"""What a machine refuses, in three parts, and what a terminal cannot print."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bfr_models.errors import UsageError
from flows.cli.command import explain
from flows.cli.show import score as show_score
from tasks.check_machine import _weights
from tasks.config.score import ScoreRun
from tasks.score_dataset import score_dataset
from tasks.storage import local_disk
from tasks.storage.store import Store
from tests import support


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, 1, "expected space left on the device at /dst/a, found none; free some"),
        (errno.EDQUOT, 1, "expected room in your quota at /dst/a, found none"),
        (errno.EROFS, 1, "expected a destination that can be written at /dst/a, found a read-only file system"),
        (errno.EACCES, 1, "expected permission at /dst/a, found none; give it to this user"),
        (errno.EMFILE, 1, "expected more open files at /dst/a, found the limit reached; raise `ulimit -n`"),
        (errno.ENAMETOOLONG, 2, "expected a name that the file system takes at /dst/a, found a longer one"),
    ],
)
def test_what_the_system_refuses_is_told_in_three_parts(number: int, code: int, words: str) -> None:
    found, message = explain(OSError(number, os.strerror(number), "/dst/a"))
    assert (found, message.startswith(words)) == (code, True), message
    assert message.endswith(", then run the same command again")


def test_a_setting_that_prefect_does_not_take_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "many")
    with pytest.raises(ValueError, match="max_retries") as raised:
        Settings()
    code, message = explain(raised.value)
    assert code == 2
    assert message.startswith(
        "expected settings that Prefect takes, found in its ClientSettings: max_retries = 'many' ("
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "Unable to locate credentials"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "Partial credentials found in env, missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found"),
        (
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": "localhost:9000"},
            "Invalid endpoint: localhost:9000",
        ),
    ],
    ids=("no keys", "half of the keys", "a profile misspelt", "an endpoint without its protocol"),
)
def test_what_is_missing_to_ask_s3_is_told_in_three_parts(
    settings: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    for name, value in (nothing | {"AWS_CONFIG_FILE": str(tmp_path / "none")} | settings).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=re.escape(words)) as raised:
        Store("s3://scans/faces").exists("a.parquet")
    code, message = explain(raised.value)
    assert code == 2
    assert message.startswith(f"expected settings with which S3 can be asked, found: {words}; check the credentials in")


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "words"),
    [
        (403, "InvalidAccessKeyId", 2, "found a refusal (InvalidAccessKeyId, status 403); check the URL, the perm"),
        (403, "SignatureDoesNotMatch", 2, "found a refusal (SignatureDoesNotMatch, status 403); check the URL"),
        (403, "403", 2, "found a refusal (403, status 403); check the URL"),
        (404, "NoSuchBucket", 2, "found no such bucket; create it"),
        (404, "NoSuchKey", 1, "found nothing (NoSuchKey, status 404)"),
        (403, "ExpiredToken", 1, "found credentials that have expired; renew"),
        (403, "InvalidObjectState", 1, "found an object in an archive of the store"),
    ],
)
def test_a_refusal_of_a_store_ends_with_2_where_the_same_command_could_not_go_on(
    status: int, code: str, exit_code: int, words: str
) -> None:
    """Whatever the verb: also those that do not ask for the bucket first."""
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = PermissionError("refused") if status == 403 else FileNotFoundError("refused")
    error.__cause__ = ClientError(answer, "GetObject")
    found, message = explain(error)
    assert found == exit_code and words in message, message


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no folder")
    with pytest.raises(NotADirectoryError) as raised:
        Store(str(tmp_path / "notes.txt")).read("plan/spec.json")
    code, message = explain(raised.value)
    assert code == 2 and message.startswith(
        f"expected a folder at {tmp_path}/notes.txt, found a file; correct the path"
    )


def test_a_full_disk_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as raised:
        Store(str(tmp_path)).write("data/a.parquet", b"rows")
    assert raised.value.filename == str(tmp_path / "data/a.parquet") and not list(tmp_path.glob("data/*"))


def test_a_destination_that_cannot_be_written_is_known_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_disk.require_writable(str(tmp_path / "new" / "folder"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(
        UsageError, match=f"to write to {tmp_path}/dst, found no permission .* at {tmp_path}; use anoth"
    ):
        Store(str(tmp_path / "dst")).require_writable()


@pytest.mark.skipif(os.geteuid() != 0, reason="others may not write to /proc")
def test_a_destination_that_no_folder_can_be_made_for_is_known_too() -> None:
    with pytest.raises(UsageError, match=r"can be made at /proc/x/y, found that /proc takes none .*; use another"):
        Store("/proc/x/y").require_writable()


def test_a_probe_for_a_destination_leaves_nothing(tmp_path: Path) -> None:
    Store(str(tmp_path / "new" / "dst")).require_writable()
    assert not list(tmp_path.iterdir())


def test_nothing_is_broken_on_a_fresh_machine_for_weights_that_nobody_has_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BFR_WEIGHTS", str(tmp_path))
    checks = {check.name: check for check in _weights()}
    assert "bad" not in {check.state for check in checks.values()}
    nobodys = checks["weights diffbfr-ffhq512-irm_low"]
    assert nobodys.state == "missing" and "`bfr train diffbfr irm_low --preset ffhq512`" in nobodys.advice


def test_a_score_says_what_no_row_has_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    places = {"source": str(tmp_path / "src"), "destination": str(tmp_path / "scores")}
    result = score_dataset(ScoreRun(**places, column="image", recogniser="none"))
    assert result["failed"] == 0 and {"identity_similarity", "psnr", "ssim"} <= result["unmeasured"].keys()
    assert "niqe" not in result["unmeasured"]  # nobody asked for it
    show_score(result)
    said = capsys.readouterr().out
    assert "in no row: identity_similarity, " in said and "--lq-column" in said and "--gt-column" in said


def test_a_terminal_that_lacks_a_letter_ends_nothing() -> None:
    code = "from flows.cli.main import print_what_the_terminal_lacks as prepare; prepare(); print('5 \u00b1 1 \u2192')"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(support.ROOT)}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert printed == "5 \u00b1 1 ?\n".encode("latin-1")
