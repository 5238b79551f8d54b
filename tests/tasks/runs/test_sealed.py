"""A record that is not what was written says so, whichever byte is wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from tasks.runs.layout import plan_file
from tasks.runs.plan import freeze_plan
from tasks.runs.sealed import DamagedError, read_json, read_sealed, seal
from tasks.runs.shards import SCHEMA
from tasks.storage.store import Store
from tests import support

RECORD = {"rows": 3, "statistics": {"psnr": 31.25, "files": ["a", "b"]}, "none": None}


def test_any_wrong_byte_of_a_sealed_record_is_noticed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    data = json.dumps(seal(RECORD)).encode()
    store.write("record.json", data)
    assert read_json(store, "record.json") == seal(RECORD)
    for place in range(len(data)):
        store.write("record.json", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            found = read_json(store, "record.json")
        except DamagedError:
            continue
        assert {name: found[name] for name in RECORD} == RECORD  # the name of the checksum itself was hit


def test_any_wrong_byte_of_a_plan_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    store, shards = Store(str(tmp_path)), [support.make_shard(f"s{i}", first_row=4 * i) for i in range(3)]
    plan = freeze_plan(store, 0, shards, ["no_face"], {"settings": {"seed": 1}})
    data = store.read(plan_file(0))
    places, noticed = range(3, len(data), 13), 0
    for place in places:
        store.write(plan_file(0), data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :])
        try:
            table = read_sealed(store, plan_file(0), SCHEMA)
        except DamagedError:
            noticed += 1
            continue
        assert table.equals(plan.shards) and table.schema.metadata == plan.shards.schema.metadata
    assert noticed > len(places) / 2  # the rest is Parquet's own: statistics, offsets of what is not read


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_what_does_not_parse_is_named_with_its_path_and_what_to_do(content: bytes, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("plan/spec.json", content)
    with pytest.raises(DamagedError) as raised:
        read_json(store, "plan/spec.json")
    message = str(pickle.loads(pickle.dumps(raised.value)))
    assert f"{tmp_path}/plan/spec.json" in message and f"`bfr repair {tmp_path}`" in message


def test_records_of_older_versions_have_no_checksum_and_are_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("record.json", json.dumps(RECORD).encode())
    assert read_json(store, "record.json") == RECORD
