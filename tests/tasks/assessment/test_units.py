"""Which rows an assessment looks at, and which of them share a file."""

from __future__ import annotations

from tasks.assessment.units import pieces, units
from tasks.runs.shards import Shard, shards_of_file


def shards(*rows: int) -> list[Shard]:
    files = (shards_of_file(f"/s/{n}", f"{n}", "1", [32] * (count // 32), 32) for n, count in enumerate(rows))
    return [shard for file in files for shard in file]


def test_all_rows_are_in_one_unit_each_which_knows_their_place() -> None:
    found = list(units(pieces(shards(3200, 64), None, None, 0)))
    assert [unit.rows for unit in found] == [992, 992, 992, 224, 64]
    assert len({unit.path for unit in found}) == 5
    shard, index = found[1].place(1000)
    assert shard.first_row + index == 1000 and shard.name == "0"


def test_the_first_rows_or_some_at_random_from_all_over() -> None:
    assert sum(piece.rows for piece in pieces(shards(320), 70, None, 0)) == 70
    assert pieces(shards(320), 70, None, 0)[-1].picks == tuple(range(6))
    drawn = pieces(shards(3200), None, 100, 1)
    assert sum(piece.rows for piece in drawn) == 100 and len({piece.shard.id for piece in drawn}) == 13
    assert drawn == pieces(shards(3200), None, 100, 1) != pieces(shards(3200), None, 100, 2)
    assert sum(piece.rows for piece in pieces(shards(64), None, 100, 1)) == 64


def test_a_sample_has_as_many_rows_as_were_asked_for_where_some_shards_are_small() -> None:
    few = list(shards_of_file("/s/0", "0", "1", [32, 32, 32, 4], 32))
    for wanted in (50, 90, 99, 100):
        assert sum(piece.rows for piece in pieces(few, None, wanted, 0)) == wanted
