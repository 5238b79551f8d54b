"""Units of an assessment: consecutive rows that share a file of the result, read in pieces that fit into memory."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tasks.assessment.table import FOLDER
from tasks.runs.shards import Shard

UNIT_ROWS = 1000
SAMPLE_ROWS = 8  # of one shard: reading a shard costs more than looking at a few of its rows


@dataclass(frozen=True)
class Piece:
    """Some rows of a shard, counted from its first; None: all of them."""

    shard: Shard
    picks: tuple[int, ...] | None = None

    @property
    def rows(self) -> int:
        return self.shard.rows if self.picks is None else len(self.picks)


@dataclass(frozen=True)
class Unit:
    """Pieces of one source file. Its name depends on the file's version and the rows, and on nothing else."""

    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    @property
    def path(self) -> str:
        """The file of its rows, below the assessment's folder."""
        key = "\0".join(f"{piece.shard.id} {piece.picks}" for piece in self.pieces)
        return f"{FOLDER}/{hashlib.blake2b(key.encode(), digest_size=10).hexdigest()}.parquet"

    def place(self, source_row: int) -> tuple[Shard, int]:
        """The shard of a row of the source file, and the row's index in it."""
        shards = (piece.shard for piece in self.pieces)
        shard = next(one for one in shards if one.first_row <= source_row < one.first_row + one.rows)
        return shard, source_row - shard.first_row


def units(pieces: Iterable[Piece]) -> Iterator[Unit]:
    """Groups pieces in their order, those of each file apart, into units of about `UNIT_ROWS` rows."""
    for _, of_file in groupby(pieces, lambda piece: piece.shard.source):
        unit: list[Piece] = []
        for piece in of_file:
            if unit and sum(one.rows for one in unit) + piece.rows > UNIT_ROWS:
                yield Unit(tuple(unit))
                unit = []
            unit.append(piece)
        yield Unit(tuple(unit))


def pieces(shards: Sequence[Shard], limit: int | None, sample: int | None, seed: int) -> list[Piece]:
    """All rows, or the first `limit`, or `sample` rows at random, a few from each of as many shards as that takes."""
    if sample is not None:
        return _sampled(shards, sample, random.Random(seed))
    found, left = list[Piece](), limit
    for shard in shards:
        if left is not None and left < shard.rows:
            return [*found, Piece(shard, tuple(range(left)))] if left else found
        found.append(Piece(shard))
        left = None if left is None else left - shard.rows
    return found


def _sampled(shards: Sequence[Shard], wanted: int, draw: random.Random) -> list[Piece]:
    order = list(range(len(shards)))
    draw.shuffle(order)
    each = max(SAMPLE_ROWS, -(-wanted // max(len(shards), 1)))
    counts, left = dict.fromkeys(order, 0), wanted
    for most in (each, wanted):  # others make up for shards that have fewer rows than their share
        for number in order:
            more = min(min(most, shards[number].rows) - counts[number], left)
            counts[number] += more
            left -= more
    chosen = {
        number: Piece(shards[number], tuple(sorted(draw.sample(range(shards[number].rows), count))))
        for number, count in counts.items()
        if count
    }
    return [chosen[number] for number in sorted(chosen)]
