"""What people have decided about the faces of a run: records in `review/decisions/`, created and never changed.

A record holds what one reviewer has decided at one moment, about one face or several: by whom, when, and what. Of all
decisions about a face the latest counts. An undo is a record as well, which names the one that counts no more. So
reviewers share a run without a lock: each writes files of its own, and all who read them come to the same result.

    latest     by `when`, then by the record's name. `when` is the clock of the reviewer's machine, but never before
               what that reviewer has seen: whoever decides against a decision wins, however wrong the clocks are
    written    before the page says so; what is on the page has survived a crash
    looked at  the picture that a decision is about, by its data file: once the shard is done again, as after damage or
               by --retry-rejected, the decision is `outdated` and the face open again. Older records name no picture
    bundled    copies of many records lie in one file beside them, which is quicker to read; they are still what counts
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from tasks.runs.layout import DECISIONS, REVIEW, decision_file, decisions_bundle
from tasks.runs.outcomes import CHANGED, outcome_word
from tasks.runs.sealed import DamagedError, damaged, read_json, seal
from tasks.runs.single_writer import learn_conditions
from tasks.storage.store import PARALLEL_READS, Store

APPROVED, ORIGINAL, REDO, SKIPPED = "approved", "original", "redo", "skipped"
VERDICTS = (APPROVED, ORIGINAL, REDO, SKIPPED)
"""What may be decided about a face: it is good; the input's pixels are better; it is to be restored in another way;
somebody has looked at it and left it open."""
MIXED = "mixed"
"""A row in which some faces are approved and others are to keep the input's pixels."""

_BUNDLED = 500  # records that are read one by one
_MOMENT = timedelta(microseconds=1)


class FaceKey(NamedTuple):
    """A face of a run: its shard, its row in the source file, and its place among the row's faces."""

    shard: str
    row: int
    face: int


@dataclass(frozen=True)
class Redo:
    """How a face is to be restored instead."""

    method: str
    fidelity: float | None = None  # None: as the method's preset has it


@dataclass(frozen=True)
class Decision:
    """What somebody has decided about one face."""

    key: FaceKey
    id: str  # of its row
    verdict: str
    redo: Redo | None = None
    data: str = ""  # the file with the picture that was looked at; "" in records of older versions
    by: str = ""
    when: str = ""
    record: str = ""

    @property
    def order(self) -> tuple[str, str]:
        """Of two decisions about a face, the one with the greater order counts."""
        return self.when, self.record


@dataclass
class _Record:
    name: str
    by: str
    when: str
    undoes: str | None
    content: Mapping[str, Any]  # as it is stored
    decisions: list[Decision] = field(default_factory=list)


class Reviews:
    """The decisions of a run, as far as they have been read. One thread at a time."""

    def __init__(self, store: Store, pictures: Mapping[str, str | None] | None = None, *, bundled: bool = True) -> None:
        """`pictures`: the data file of each shard of the run as it is now; without them, decisions count whatever
        picture they are about. `bundled`: copies will do."""
        self._store, self._pictures, self._may_be_copies = store, pictures, bundled
        self._records: dict[str, _Record] = {}
        self._undone = set[str]()
        self._by_face: dict[FaceKey, list[Decision]] = defaultdict(list)
        self._in_bundle = 0
        self.current: dict[FaceKey, Decision] = {}
        self.outdated = set[FaceKey]()  # faces that were decided about as they looked before, and not since

    def refresh(self, skip: Callable[[DamagedError], None] | None = None) -> set[FaceKey]:
        """Reads the records that have been added since, by anybody; the faces that they are about. DamagedError for a
        record that is not what was written, unless `skip` takes it."""
        paths = self._store.list(REVIEW)
        found = {path[len(DECISIONS) + 1 : -len(".json")] for path in paths if path.startswith(f"{DECISIONS}/")}
        new = [name for name in sorted(found) if name and name not in self._records]
        if len(new) > _BUNDLED and self._may_be_copies:
            bundled = self._bundled(max(filter(is_bundle, paths), default=""))
            touched = self._take(bundled[name] for name in new if name in bundled)
            new = [name for name in new if name not in bundled]
        else:
            touched = set()

        def read(name: str) -> _Record | None:
            try:
                return self._read(name)
            except DamagedError as error:
                if skip is None:
                    raise
                skip(error)
                return None

        with ThreadPoolExecutor(PARALLEL_READS) as readers:
            return touched | self._take([record for record in readers.map(read, new) if record is not None])

    def bundle(self) -> None:
        """Puts copies of all records into one file, if there are many more than the last one has."""
        known = len(self._records)
        if known - self._in_bundle <= max(_BUNDLED, self._in_bundle // 2):
            return
        data = json.dumps({name: record.content for name, record in self._records.items()}).encode()
        self._store.write(decisions_bundle(known, hashlib.sha256(data).hexdigest()[:16]), data)
        self._in_bundle = known

    def _bundled(self, path: str) -> dict[str, _Record]:
        """The records in a bundle; none if there is none, or if it is not what was written."""
        data = self._store.read(path) if path else b""
        if not path.endswith(f"-{hashlib.sha256(data).hexdigest()[:16]}.json"):
            return {}
        records = {name: _parsed(name, content) for name, content in json.loads(data).items()}
        self._in_bundle = len(records)
        return records

    def decide(self, by: str, decisions: Sequence[Decision]) -> set[FaceKey]:
        """Writes decisions as one record; the faces that they are about."""
        return self._write(by, None, decisions)

    def undo(self, by: str) -> set[FaceKey]:
        """Takes back the latest record of this reviewer that still counts; the faces that it was about, none if there
        is none."""
        own = (one for one in self._records.values() if one.by == by and one.name not in self._undone)
        live = (one for one in own if not all(map(self._is_outdated, one.decisions)))
        last = max(live, key=lambda one: (one.when, one.name), default=None)
        return self._write(by, last.name, ()) if last else set()

    @property
    def digest(self) -> str:
        """16 hex digits, which change with whatever counts; "" if nothing does."""
        if not self.current:
            return ""
        counting = sorted((*one.key, one.verdict, one.redo and asdict(one.redo)) for one in self.current.values())
        return hashlib.sha256(json.dumps(counting).encode()).hexdigest()[:16]

    def counts(self, by: str | None = None) -> dict[str, int]:
        """How many faces have which verdict; of one reviewer, if one is named."""
        found = Counter(one.verdict for one in self.current.values() if by in (None, one.by))
        return {verdict: found[verdict] for verdict in VERDICTS}

    def _write(self, by: str, undoes: str | None, decisions: Sequence[Decision]) -> set[FaceKey]:
        learn_conditions(self._store)
        when = self._next_moment()
        entries = [
            {
                **one.key._asdict(),
                "id": one.id,
                "verdict": one.verdict,
                "redo": one.redo and asdict(one.redo),
                "data": one.data,
            }
            for one in decisions
        ]
        content = seal({"schema": 1, "by": by, "when": when, "undoes": undoes, "decisions": entries})
        data = json.dumps(content).encode()
        while True:
            name = f"{when.replace('-', '').replace(':', '').replace('.', '')[:21]}-{uuid.uuid4().hex[:12]}"
            # A file of this name is ours, if the response to our own put was lost: it has the same bytes.
            if self._store.create(decision_file(name), data) or self._store.read(decision_file(name)) == data:
                return self._take([_parsed(name, content)])

    def _next_moment(self) -> str:
        latest = max((one.when for one in self._records.values()), default="")
        now = datetime.now(UTC)
        if latest:
            now = max(now, datetime.fromisoformat(latest) + _MOMENT)
        return now.isoformat(timespec="microseconds")

    def _read(self, name: str) -> _Record:
        path = decision_file(name)
        content = read_json(self._store, path)
        try:
            return _parsed(name, content)
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(self._store, path, f"no record of decisions ({error!r})") from None

    def _take(self, records: Iterable[_Record]) -> set[FaceKey]:
        touched = set[FaceKey]()
        for record in records:
            self._records[record.name] = record
            for one in record.decisions:
                self._by_face[one.key].append(one)
                touched.add(one.key)
            if record.undoes is not None:
                self._undone.add(record.undoes)
                if (undone := self._records.get(record.undoes)) is not None:
                    touched.update(one.key for one in undone.decisions)
        for key in touched:
            self._settle(key)
        return touched

    def _settle(self, key: FaceKey) -> None:
        """Finds out what counts for a face. A decision that names no picture does not outlive a later one about a
        picture that is no more."""
        standing = [one for one in self._by_face[key] if one.record not in self._undone]
        last = max((one.order for one in standing if self._is_outdated(one)), default=("", ""))
        counting = [one for one in standing if not self._is_outdated(one) and (one.data or one.order > last)]
        self.current.pop(key, None)
        self.outdated.discard(key)
        if counting:
            self.current[key] = max(counting, key=lambda one: one.order)
        elif standing:
            self.outdated.add(key)

    def _is_outdated(self, decision: Decision) -> bool:
        """Whether it is about a picture that is no longer in the run."""
        if self._pictures is None or not decision.data:
            return False
        return decision.data != self._pictures.get(decision.key.shard)


def _parsed(name: str, content: Mapping[str, Any]) -> _Record:
    by, when = str(content["by"]), datetime.fromisoformat(content["when"]).isoformat(timespec="microseconds")
    record = _Record(name, by, when, content["undoes"], content)
    for entry in content["decisions"]:
        key = FaceKey(str(entry["shard"]), int(entry["row"]), int(entry["face"]))
        redo = Redo(**entry["redo"]) if entry["redo"] else None
        about = (key, entry["id"], entry["verdict"], redo, entry.get("data", ""))
        record.decisions.append(Decision(*about, by, when, name))
    return record


def read_reviews(store: Store, pictures: Mapping[str, str | None] | None = None) -> Reviews:
    """All decisions of a run, as `Reviews` has them. DamagedError for a record that is not what was written."""
    reviews = Reviews(store, pictures)
    reviews.refresh()
    return reviews


def is_bundle(path: str) -> bool:
    """Whether a path is that of copies of many records."""
    return path.startswith(decisions_bundle(0, "")[: len(REVIEW) + 8])


def count_decisions(store: Store) -> tuple[int, list[DamagedError]]:
    """About how many faces there is a decision, and the records that are not what was written."""
    reviews, unread = Reviews(store, bundled=False), list[DamagedError]()
    reviews.refresh(unread.append)
    return len(reviews.current), unread


def row_verdict(outcomes: Sequence[str], verdicts: Mapping[int, str]) -> str | None:
    """What the verdicts on a row's faces come to; None while a changed face is open.

    `outcomes` are those of its faces, in order, `verdicts` those that there are, by the face's place. Faces that the
    run has not changed need none, but may be sent to be redone.
    """
    given = set(verdicts.values()) - {SKIPPED}
    if REDO in given:
        return REDO
    changed = [place for place, outcome in enumerate(outcomes) if outcome_word(outcome or "") in CHANGED]
    deciding = {verdicts.get(place, SKIPPED) for place in changed} if changed else given
    if not deciding or SKIPPED in deciding:
        return None
    return MIXED if len(deciding) > 1 else deciding.pop()
