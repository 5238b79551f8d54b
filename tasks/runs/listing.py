"""The shards of a source as it is now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from bfr_models.errors import UsageError
from tasks.config.restore import RestoreRun
from tasks.datasets.image_column import find_image_column
from tasks.datasets.row_groups import DAMAGE, is_damage
from tasks.datasets.row_ids import require_ids, row_ids
from tasks.runs.layout import has_own_source
from tasks.runs.selected_rows import picked_rows, selected_rows
from tasks.runs.shards import Shard, shards_of_file
from tasks.runs.source import open_source
from tasks.storage.local_disk import NotAFileError
from tasks.storage.redaction import redact
from tasks.storage.store import PARALLEL_READS, FileVersion, Store


def list_source(run: RestoreRun) -> tuple[list[Shard], dict[str, str]]:
    """The shards of the source as it is now, and the files that cannot be read, each with the reason. UsageError for
    such files, unless the run leaves them out and others remain."""
    files, selected = open_source(run.source), selected_rows(run)
    wanted = None if selected is None else selected.ids
    own = has_own_source({"source": run.source, "destination": run.destination})
    shards: list[Shard] = []
    damaged: dict[str, str] = {}
    with ThreadPoolExecutor(PARALLEL_READS) as readers:
        footers = readers.map(lambda found: _row_groups(found[0], found[1], run, wanted), files)
        for (store, file), found in zip(files, footers, strict=True):
            url = store.url(file.path)
            if isinstance(found, str):
                damaged[url] = found
            else:
                cut = shards_of_file(url, file.name, file.version, found.rows, run.shard_rows, found.picked)
                shards.extend(replace(shard, own=True) if own else shard for shard in cut)
    if damaged and not (run.leave_out_damaged and shards):
        url, why = next(iter(damaged.items()))
        raise UsageError(
            f"expected a Parquet file at {redact(url)}, found one that cannot be read ({why}); "
            "remove it from the source or repair it"
        )
    if selected is not None and not shards and not damaged:
        raise UsageError(
            f"expected the selected rows in {redact(run.source)}, found none of the {len(selected.ids)} ids there; "
            "select from an assessment of this very source"
        )
    return shards, damaged


@dataclass(frozen=True)
class _File:
    rows: list[int]  # of each row group
    picked: list[int] | None  # the numbers of the selected rows; None: all


def _row_groups(store: Store, file: FileVersion, run: RestoreRun, wanted: Collection[str] | None) -> _File | str:
    """The rows of the file, from its footer, or why it cannot be read; checks that the columns are there."""
    try:
        opened = store.open_input(file.path)
    except (FileNotFoundError, NotAFileError) as error:  # a link that leads nowhere; a pipe, a device or a socket
        return f"{error.strerror or error}"
    with opened as source:
        try:
            parquet = pq.ParquetFile(source)
        except DAMAGE as error:
            if not is_damage(error):
                raise
            return str(error)
        for column in filter(None, (run.column, run.gt_column, run.mask_column)):
            find_image_column(parquet.schema_arrow, column)
        require_ids(parquet.schema_arrow)
        rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        return _File(rows, None if wanted is None else picked_rows(wanted, _ids(parquet, file.name)))


def _ids(parquet: pq.ParquetFile, name: str) -> Iterator[str]:
    """The id of each row, as restoring gives it."""
    if "id" not in parquet.schema_arrow.names:
        yield from (f"{name}#{row}" for row in range(parquet.metadata.num_rows))
        return
    first = 0
    for batch in parquet.iter_batches(columns=["id"]):
        yield from row_ids(name, first, pa.Table.from_batches([batch]))
        first += batch.num_rows
