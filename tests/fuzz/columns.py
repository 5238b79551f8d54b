"""The finder of image columns: whatever a Parquet file has for columns and values, it becomes rows, or the reason is
said."""

from __future__ import annotations

import io
from collections.abc import Iterator

import atheris
import pyarrow as pa
import pyarrow.parquet as pq

with atheris.instrument_imports(include=["tasks"]):
    from tasks.pack_pictures import pack_pictures
    from tasks.storage.store import Store

from tests.fuzz.harness import fuzz

_NAMES = ("image", "id", "path", "source_image", "bytes", "", "IMAGE", "ä", "image ")


def check(data: bytes) -> None:
    """Bytes that start with a Parquet file's are one; of others a table is made."""
    file = data if data[:3] == b"PAR" else _file_of(atheris.FuzzedDataProvider(data))
    Store("memory://in/year=1923").write("a.parquet", file)
    pack_pictures("memory://in", "memory://out", overwrite=True)


def _file_of(given: atheris.FuzzedDataProvider) -> bytes:
    rows = given.ConsumeIntInRange(0, 5)
    names = [given.PickValueInList(list(_NAMES)) for _ in range(given.ConsumeIntInRange(0, 4))]
    columns = [_column(given, rows) for _ in names]
    table = pa.Table.from_arrays(columns, names=names)
    if given.ConsumeBool():
        table = table.replace_schema_metadata({b"huggingface": given.ConsumeBytes(60)})
    pq.write_table(table, file := io.BytesIO(), row_group_size=given.ConsumeIntInRange(1, 3))
    return file.getvalue()


def _column(given: atheris.FuzzedDataProvider, rows: int) -> pa.Array:
    kind = _kind(given, 0)
    try:
        return pa.array([_value(given, kind) for _ in range(rows)], kind)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return pa.nulls(rows, kind)


def _kind(given: atheris.FuzzedDataProvider, depth: int) -> pa.DataType:
    plain = [pa.binary(), pa.string(), pa.large_binary(), pa.large_string(), pa.int64(), pa.float32(), pa.bool_()]
    plain += [pa.timestamp("ns"), pa.decimal128(9, 2), pa.null(), pa.date32(), pa.binary(4)]
    choice = given.ConsumeIntInRange(0, len(plain) + 3 if depth < 2 else len(plain) - 1)
    if choice < len(plain):
        return plain[choice]
    inner = _kind(given, depth + 1)
    if choice == len(plain):
        return pa.list_(inner)
    if choice == len(plain) + 1:
        return pa.dictionary(pa.int32(), pa.string())
    names = [given.PickValueInList(["bytes", "path", "x"]) for _ in range(given.ConsumeIntInRange(1, 3))]
    return pa.struct([(name, inner if name != "path" else pa.string()) for name in dict.fromkeys(names)])


def _value(given: atheris.FuzzedDataProvider, kind: pa.DataType) -> object:
    if given.ConsumeIntInRange(0, 4) == 0:
        return None
    if pa.types.is_struct(kind):
        return {field.name: _value(given, field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_value(given, kind.value_type) for _ in range(given.ConsumeIntInRange(0, 2))]
    if pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        return given.ConsumeInt(4)
    data = given.ConsumeBytes(given.ConsumeIntInRange(0, 12))
    return data if "binary" in str(kind) else data.decode("latin-1")


def _seeds() -> Iterator[bytes]:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": b"\xff\xd8\xff", "path": "a.jpg"}, {"bytes": None, "path": "http://a/b"}, None]
    texts = ["a", "\ud7ff", None]
    for column in (pa.array(cells, image), pa.array([b"a", b"", None]), pa.array(texts), pa.array([1, 2, 3])):
        for compression in ("none", "snappy", "zstd"):
            for extra in ({}, {"id": pa.array(texts)}, {"id": pa.array([1, 2, 3]), "year": pa.array([1.5, None, 2.0])}):
                pq.write_table(pa.table({"image": column, **extra}), file := io.BytesIO(), compression=compression)
                yield file.getvalue()
    for number in range(40):
        yield bytes((7 * number + 3 * at * at) % 251 for at in range(200))


if __name__ == "__main__":
    fuzz(check, _seeds)
