"""Shards tile their file, and their names depend on nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_models.errors import BfrError, UsageError
from tasks.datasets.image_column import IMAGE
from tasks.datasets.row_ids import require_ids, row_ids
from tasks.pack_pictures import pack_pictures
from tasks.runs.listing import list_source
from tasks.runs.shards import Shard, current_version, from_table, require_unchanged, shards_of_file, to_table
from tests import support
from tests.weight_server import serving, status

group_sizes = st.lists(st.integers(0, 50), max_size=30)
limits = st.integers(1, 120)


def cut(groups: list[int], limit: int, source: str = "/a/x.parquet", version: str = "1") -> list[Shard]:
    return list(shards_of_file(source, "x.parquet", version, groups, limit))


@given(group_sizes, limits)
def test_shards_hold_every_row_of_the_file_once_and_in_order(groups: list[int], limit: int) -> None:
    rows = [row for shard in cut(groups, limit) for row in range(shard.first_row, shard.first_row + shard.rows)]
    assert rows == list(range(sum(groups)))


@given(group_sizes, limits)
def test_a_shard_is_whole_row_groups_with_at_least_one_row(groups: list[int], limit: int) -> None:
    for shard in cut(groups, limit):
        mine = groups[shard.row_group_start : shard.row_group_stop]
        assert sum(mine) == shard.rows > 0
        assert sum(groups[: shard.row_group_start]) == shard.first_row
        assert shard.rows <= limit or len([group for group in mine if group]) == 1


@given(group_sizes, limits)
def test_no_two_neighbours_would_fit_in_one_shard(groups: list[int], limit: int) -> None:
    shards = cut(groups, limit)
    for shard, after in pairwise(shards):
        assert shard.rows + groups[after.row_group_start] > limit


@given(group_sizes, limits, st.text(min_size=1), st.text(min_size=1))
def test_ids_are_those_of_the_file_and_its_version(groups: list[int], limit: int, one: str, other: str) -> None:
    first = [shard.id for shard in cut(groups, limit, version=one)]
    assert first == [shard.id for shard in cut(groups, limit, version=one)]
    assert len(first) == len(set(first))
    if one != other:
        assert not set(first) & {shard.id for shard in cut(groups, limit, version=other)}
        assert not set(first) & {shard.id for shard in cut(groups, limit, f"/{other}", version=one)}


@given(group_sizes, limits)
def test_a_plan_survives_its_table(groups: list[int], limit: int) -> None:
    shards = cut(groups, limit)
    assert list(from_table(to_table(shards))) == shards


def test_row_ids_are_the_column_id_or_else_the_place_in_the_file() -> None:
    assert row_ids("x.parquet", 10, pa.table({"image": [b""] * 2})) == ["x.parquet#10", "x.parquet#11"]
    assert row_ids("x.parquet", 10, pa.table({"id": [7, None]})) == ["7", "x.parquet#11"]


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint64(), pa.large_string(), pa.null(), pa.dictionary(pa.int8(), pa.string())]
)
def test_ids_are_strings_or_integers(kind: pa.DataType) -> None:
    require_ids(pa.schema([("id", kind)]))


@pytest.mark.parametrize("kind", [pa.float64(), pa.bool_(), pa.date32(), pa.binary()])
def test_ids_of_another_kind_are_refused(kind: pa.DataType, tmp_path: Path) -> None:
    """A pandas column of integers with gaps holds floats: row 7 was called 7.0."""
    schema = pa.schema([("id", kind), ("image", IMAGE)])
    rows = [row | {"id": None} for row in support.make_rows(2)]
    support.write_parquet(tmp_path / "src" / "a.parquet", rows, schema=schema)
    for refused in (
        lambda: list_source(support.make_run(tmp_path)),
        lambda: pack_pictures(str(tmp_path / "src"), str(tmp_path / "packed")),
    ):
        with pytest.raises(UsageError, match=re.escape(f"strings or integers in column 'id', found {kind}; convert")):
            refused()


@pytest.mark.parametrize("content", [b"other bytes", None])
def test_a_file_that_is_no_longer_the_planned_one_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"bytes")
    stat = path.stat()
    shard = replace(cut([4], 4)[0], source=str(path), version=f"{stat.st_size}-{stat.st_mtime_ns}")
    require_unchanged(shard)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(BfrError, match="changed during the run"):
        require_unchanged(shard)


def test_a_web_file_whose_server_is_busy_is_still_there() -> None:
    with serving() as server:
        server.script = [status(503), status(502)]
        assert current_version(f"{server.url}/a.parquet") == "v1"


@pytest.mark.parametrize("code", [404, 410])
def test_a_web_file_that_is_gone_has_no_version(code: int) -> None:
    with serving() as server:
        server.script = [status(code)]
        assert current_version(f"{server.url}/a.parquet") is None


def test_a_web_file_that_may_no_longer_be_read_is_not_gone() -> None:
    with serving() as server:
        server.script = [status(403)]
        with pytest.raises(PermissionError, match="403"):
            current_version(f"{server.url}/a.parquet")
        assert len(server.requests) == 1
