"""Decisions of several reviewers: none is lost, the latest counts, and all readers come to the same result."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.runs.layout import DECISIONS
from tasks.runs.reviews import (
    APPROVED,
    MIXED,
    ORIGINAL,
    REDO,
    SKIPPED,
    Decision,
    FaceKey,
    Redo,
    Reviews,
    count_decisions,
    read_reviews,
    row_verdict,
)
from tasks.runs.sealed import DamagedError
from tasks.storage.store import Store


def about(face: int, verdict: str, redo: Redo | None = None) -> Decision:
    return Decision(FaceKey("s", 7, face), "photo.jpg", verdict, redo)


def verdicts(reviews: Reviews) -> dict[int, str]:
    return {key.face: decision.verdict for key, decision in reviews.current.items()}


def test_every_store_keeps_decisions_and_the_latest_counts(url: str) -> None:
    anna, ben = Reviews(Store(url)), Reviews(Store(url))
    assert anna.decide("Anna", [about(0, APPROVED), about(1, APPROVED)]) == {FaceKey("s", 7, 0), FaceKey("s", 7, 1)}
    assert ben.refresh() == {FaceKey("s", 7, 0), FaceKey("s", 7, 1)} and ben.refresh() == set()
    ben.decide("Ben", [about(1, REDO, Redo("diffbfr", 0.8)), about(2, SKIPPED)])
    anna.refresh()
    assert verdicts(anna) == verdicts(ben) == verdicts(read_reviews(Store(url))) == {0: APPROVED, 1: REDO, 2: SKIPPED}
    one = anna.current[FaceKey("s", 7, 1)]
    assert (one.by, one.redo, one.id) == ("Ben", Redo("diffbfr", 0.8), "photo.jpg")
    assert anna.counts() == {APPROVED: 1, ORIGINAL: 0, REDO: 1, SKIPPED: 1} and anna.counts("Anna")[APPROVED] == 1


def test_an_undo_takes_back_ones_own_latest_record_and_what_was_before_counts_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    reviews = Reviews(store)
    reviews.decide("Anna", [about(0, APPROVED)])
    reviews.decide("Ben", [about(0, ORIGINAL), about(1, ORIGINAL)])
    assert reviews.undo("Anna") == {FaceKey("s", 7, 0)} and verdicts(reviews) == {0: ORIGINAL, 1: ORIGINAL}
    reviews.decide("Anna", [about(0, REDO, Redo("difface"))])
    assert reviews.undo("Ben") and verdicts(reviews) == {0: REDO}
    later = Reviews(store)  # after a restart, somebody else's records and the undone ones are not undone again
    later.refresh()
    assert later.undo("Ben") == set() and later.undo("Anna") and later.undo("Anna") == set()
    assert verdicts(later) == {} and later.digest == ""
    assert len(store.list(DECISIONS)) == 6, "nothing is ever removed"


def test_whoever_has_seen_a_decision_can_decide_against_it_however_wrong_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(hour: int) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:
                return datetime(2030, 1, 1, hour, tzinfo=UTC)

        monkeypatch.setattr("tasks.runs.reviews.datetime", Clock)

    reviews = Reviews(Store(str(tmp_path)))
    at(12)
    reviews.decide("Anna", [about(0, APPROVED)])
    at(9)
    reviews.decide("Ben", [about(0, ORIGINAL)])
    assert verdicts(read_reviews(Store(str(tmp_path)))) == {0: ORIGINAL}


def test_in_whatever_order_records_are_read_they_come_to_the_same(tmp_path: Path) -> None:
    """Also an undo that is read before what it undoes, and two decisions of the same moment."""
    store = Store(str(tmp_path))
    Reviews(store).decide("Anna", [about(0, APPROVED)])
    anna = read_reviews(store)
    anna.decide("Anna", [about(0, REDO, Redo("difface"))])
    anna.undo("Anna")
    names = store.list(DECISIONS)
    twin = json.loads(store.read(names[0])) | {"by": "Ben"}
    del twin["checksum"]
    twin["decisions"][0]["verdict"] = ORIGINAL
    store.write(names[0].replace(".json", "z.json"), json.dumps(twin).encode())
    found = set()
    for number, order in enumerate(itertools.permutations(store.list(DECISIONS))):
        copy = Store(str(tmp_path / f"copy{number}"))
        reviews = Reviews(copy)
        for name in order:
            copy.write(name, store.read(name))
            reviews.refresh()
        found.add(json.dumps(verdicts(reviews)))
    assert found == {'{"0": "original"}'}


def test_a_damaged_record_is_named_and_the_others_are_still_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    reviews = Reviews(store)
    for face in range(3):
        reviews.decide("Anna", [about(face, APPROVED)])
    path = store.list(DECISIONS)[1]
    store.write(path, store.read(path).replace(b"approved", b"original"))
    with pytest.raises(DamagedError, match="does not match its checksum"):
        read_reviews(store)
    count, unread = count_decisions(store)
    assert count == 2 and [error.path for error in unread] == [path]


def test_a_decision_counts_for_the_picture_that_was_looked_at(tmp_path: Path) -> None:
    store, seen = Store(str(tmp_path)), replace(about(0, APPROVED), data="data/s-1.parquet")
    Reviews(store).decide("Anna", [about(0, ORIGINAL), about(1, ORIGINAL)])  # by a version that named no picture
    read_reviews(store).decide("Anna", [seen])
    assert verdicts(read_reviews(store, {"s": "data/s-1.parquet"})) == {0: APPROVED, 1: ORIGINAL}
    for again in ({"s": "data/s-2.parquet"}, {"s": None}, {}):  # done again, all rejected, another version of the file
        reviews = read_reviews(store, again)
        assert verdicts(reviews) == {1: ORIGINAL} and reviews.outdated == {FaceKey("s", 7, 0)}
    reviews = read_reviews(store, {"s": "data/s-2.parquet"})
    reviews.decide("Ben", [replace(about(0, SKIPPED), data="data/s-2.parquet")])
    assert verdicts(reviews) == {0: SKIPPED, 1: ORIGINAL} and not reviews.outdated
    assert reviews.undo("Ben") and reviews.outdated, "what was before the undone one is still about another picture"
    assert count_decisions(store) == (2, [])


@pytest.mark.parametrize(
    ("outcomes", "given", "expected"),
    [
        (["restored", "corrected"], {0: APPROVED, 1: APPROVED}, APPROVED),
        (["restored", "corrected"], {0: APPROVED}, None),
        (["restored", "corrected"], {0: APPROVED, 1: SKIPPED}, None),
        (["restored", "corrected"], {0: APPROVED, 1: ORIGINAL}, MIXED),
        (["restored", "corrected"], {0: ORIGINAL, 1: ORIGINAL}, ORIGINAL),
        (["restored", "corrected"], {1: REDO}, REDO),
        (["restored", "kept_original: no gain expected"], {0: APPROVED}, APPROVED),
        (["restored", "skipped: too small"], {1: APPROVED}, None),
        (["kept_original"], {0: APPROVED}, APPROVED),
        (["kept_original"], {0: REDO}, REDO),
        (["kept_original"], {}, None),
        ([], {}, None),
    ],
)
def test_what_the_verdicts_on_a_rows_faces_come_to(
    outcomes: list[str], given: dict[int, str], expected: str | None
) -> None:
    assert row_verdict(outcomes, given) == expected


def test_many_records_are_read_from_one_copy_and_still_count_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.runs.reviews._BUNDLED", 3)
    store = Store(str(tmp_path))
    reviews = Reviews(store)
    for face in range(4):
        reviews.decide("Anna", [about(face, APPROVED)])
        reviews.bundle()
    (bundle,) = (tmp_path / "review").glob("bundle-*")
    reviews.decide("Ben", [about(0, ORIGINAL)])
    gone, damaged = sorted((tmp_path / DECISIONS).iterdir())[1:3]
    gone.unlink()
    damaged.write_text("{")
    assert verdicts(read_reviews(store)) == {0: ORIGINAL, 2: APPROVED, 3: APPROVED}
    assert [error.path for error in count_decisions(store)[1]] == [f"{DECISIONS}/{damaged.name}"]
    bundle.write_bytes(bundle.read_bytes().replace(b"approved", b"original"))
    with pytest.raises(DamagedError):
        read_reviews(store)
