"""What is said on standard error: in which form, and how much of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from flows.progress import bars, output
from flows.progress.bars import RowProgress
from tasks.storage.waits import say


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    for name in output.OURS:
        logging.getLogger(name).removeHandler(output._handler)
        logging.getLogger(name).setLevel(logging.NOTSET)
    output.output = output.Output()


def speak() -> None:
    logging.getLogger("tasks.worker").info("a detail")
    say("starting Ray")
    logging.getLogger("tasks.engine").warning("a worker died")
    output.error("expected a disk, found none")


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ({}, ["starting Ray", "a worker died", "error: expected a disk, found none"]),
        ({"verbose": True}, ["a detail", "starting Ray", "a worker died", "error: expected a disk, found none"]),
        ({"quiet": True}, ["error: expected a disk, found none"]),
    ],
)
def test_more_or_less_is_said(options: dict[str, bool], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    output.begin("restore", **options)
    speak()
    assert capsys.readouterr().err.splitlines() == lines


def test_lines_may_be_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.begin("restore", log="json")
    speak()
    with RowProgress("difface", 12) as line:
        line.advance(12)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [one["level"] for one in told] == ["note", "warning", "error", "note"]
    assert told[2]["message"] == "expected a disk, found none"
    assert (told[3]["done"], told[3]["total"]) == (12, 12) and told[3]["message"].startswith("difface: 12/12 rows, ")
    assert all(one["time"].endswith("+00:00") for one in told)


def test_no_line_is_printed_twice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bars, "LINE_SECONDS", 0.1)
    monkeypatch.setattr(bars, "_TICK", 0.02)
    output.begin("restore")
    with RowProgress("difface", 12) as line:
        line.advance(12)
        assert line._ended.wait(0.5) is False  # time for several lines, of which the first says it all
    assert capsys.readouterr().err.count("12/12 rows") == 1


def test_secrets_are_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    output.begin("restore")
    say("s3://key:secret@bucket/x?X-Amz-Signature=abc")
    assert "secret" not in capsys.readouterr().err


def test_a_sign_of_life_comes_only_if_nothing_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    output.begin("score")
    output.sign_of_life()
    output.sign_of_life()
    assert capsys.readouterr().err == "bfr score: starting\n"
