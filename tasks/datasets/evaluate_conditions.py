"""SQL conditions over Arrow tables, evaluated by a DuckDB that can reach nothing else; `conditions` asks it.

A condition is one expression over the columns. DuckDB's own parser turns it into a syntax tree, which may contain only
the node types and functions allowed below: no subquery, no other table, no second statement, no function that is random
or depends on the clock.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bfr_models.errors import UsageError

MEMORY_LIMIT = "1GB"
MAX_LENGTH = 10_000  # characters of a condition

# A second wall, should an expression get past the check of its syntax tree: neither files nor network, bounded memory.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,  # otherwise an unknown table name may mean a Python variable
    "max_expression_depth": 250,  # before the parser's recursion overflows the stack
    "memory_limit": MEMORY_LIMIT,
    "threads": 2,
    "temp_directory": "",  # nothing is spilled to disk
    "lock_configuration": True,
}
_NODE_CLASSES = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "OPERATOR", "TYPE",
}  # fmt: skip
# Macros have no stability in `duckdb_functions()`; these are known to depend on their arguments alone.
_MACRO_PREFIXES = ("list_", "array_", "map_")
_MACROS = ("if", "nullif", "split_part", "fmod", "fdiv")
_UNBOUNDED = {
    "range", "generate_series", "repeat", "lpad", "rpad", "list_resize", "array_resize", "bar", "format", "printf",
}  # fmt: skip
"""With a few characters they fill any memory, even beyond `memory_limit`."""

_TRUE = "SELECT (true\n) AS kept FROM rows"  # what `_select` makes of a condition that is surely one


def check_condition(condition: str, schema: pa.Schema) -> None:
    """UsageError unless the condition is one Boolean expression over these columns."""
    with _database(schema.empty_table()) as database:
        _require_distinct(_require_expression(database, condition), schema.names, condition)
        (kind,) = _evaluate(database, condition).types
    if str(kind) != "BOOLEAN":
        raise UsageError(f"expected a condition that is true or false, found {condition!r}, which is {kind}")


def rows_where(table: pa.Table, condition: str) -> NDArray[np.bool_]:
    """(n,) whether the condition holds for each row; null counts as false.

    UsageError for what `check_condition` refuses, and for a condition that cannot be evaluated.
    """
    check_condition(condition, table.schema)
    with _database(table) as database:
        try:
            found = _evaluate(database, condition).to_arrow_table()["kept"].combine_chunks()
        except duckdb.Error as error:
            raise UsageError(f"cannot evaluate {condition!r}: {_first_line(error)}") from None
    kept: NDArray[np.bool_] = found.fill_null(False).to_numpy(zero_copy_only=False)
    return kept


@contextmanager
def _database(table: pa.Table) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:", config=_CONFIG) as database:
        database.register("rows", table)
        yield database


def _evaluate(database: duckdb.DuckDBPyConnection, condition: str) -> duckdb.DuckDBPyRelation:
    try:
        return database.sql(_select(condition))
    except duckdb.BinderException as error:
        columns = ", ".join(database.table("rows").columns)
        raise UsageError(
            f"expected a condition over the columns {columns}; found {condition!r}: {_first_line(error)} (text is "
            "written in single quotes)"
        ) from None
    except duckdb.Error as error:
        raise UsageError(f"cannot evaluate {condition!r}: {_first_line(error)}") from None


def _select(condition: str) -> str:
    return f"SELECT ({condition}\n) AS kept FROM rows"  # noqa: S608  its syntax tree is checked; the line break ends a comment


def _require_distinct(expression: Any, columns: list[str], condition: str) -> None:
    """UsageError for a column whose name another one has in another case: DuckDB would take the first of them."""
    spellings = {name.casefold(): [one for one in columns if one.casefold() == name.casefold()] for name in columns}
    for node in _nodes(expression):
        steps = node.get("column_names") or [""]
        name = steps[1] if len(steps) > 1 and steps[0].casefold() == "rows" else steps[0]
        if len(found := spellings.get(name.casefold(), [])) > 1:
            raise UsageError(
                f"expected columns that differ in more than case, found {' and '.join(map(repr, found))}; "
                f"{condition!r} names one of them, and SQL does not tell them apart: leave it out, or restore a source "
                "whose column has another name"
            )


def _require_expression(database: duckdb.DuckDBPyConnection, condition: str) -> Any:
    """The syntax tree of the condition. UsageError unless it is a single expression of allowed parts."""
    if len(condition) > MAX_LENGTH:
        raise UsageError(f"expected a condition of at most {MAX_LENGTH} characters, found {len(condition)}")
    parsed, plain = _parsed(database, _select(condition)), _parsed(database, _TRUE)
    if parsed["error"]:
        raise UsageError(f"expected an SQL condition, found {condition!r}: {_first_line(parsed['error_message'])}")
    statements = [statement["node"] for statement in parsed["statements"]]
    chosen = [node.pop("select_list", []) for node in statements]
    frame = plain["statements"][0]["node"]
    del frame["select_list"]
    # A condition such as "true) AS kept FROM rows; DROP TABLE rows --" changes what stands around it.
    if len(statements) != 1 or len(chosen[0]) != 1 or _without_locations(statements[0]) != _without_locations(frame):
        raise UsageError(f"expected one SQL condition, found {condition!r}, which is more than that")
    allowed = _functions(database)
    for node in _nodes(chosen[0]):
        kind, name = node.get("class"), node.get("function_name")
        if kind is not None and kind not in _NODE_CLASSES:
            raise UsageError(f"expected a condition over a row's own columns, found {condition!r} with a {kind}")
        if name is not None and name.lower() not in allowed:
            raise UsageError(
                f"expected functions of a row's own columns, found {name!r} in {condition!r}, which is unknown, or "
                "differs each time, or may fill the memory"
            )
    return chosen[0]


def _parsed(database: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    try:
        (text,) = database.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("",)
        found: dict[str, Any] = json.loads(text)
    except (duckdb.Error, RecursionError) as error:
        raise UsageError(f"expected an SQL condition, found one that does not parse: {_first_line(error)}") from None
    return found


def _functions(database: duckdb.DuckDBPyConnection) -> set[str]:
    """The functions that a condition may call: those that depend on nothing but their arguments."""
    rows = database.execute("SELECT function_name, function_type, stability FROM duckdb_functions()").fetchall()
    scalar = {name for name, kind, stability in rows if kind == "scalar" and stability == "CONSISTENT"}
    unstable = {name for name, kind, stability in rows if kind == "scalar" and stability != "CONSISTENT"}
    macros = {name for name, kind, _ in rows if kind == "macro"}
    macros = {name for name in macros if name.startswith(_MACRO_PREFIXES) or name in _MACROS}
    return (scalar | macros) - unstable - _UNBOUNDED


def _nodes(found: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON document, without recursion: a condition can be nested deeper than Python allows."""
    left = [found]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
        left += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


def _without_locations(node: dict[str, Any]) -> str:
    """The node as text, without its positions in the condition."""
    for inner in _nodes(node):
        inner.pop("query_location", None)
        inner.pop("query_location_length", None)
    return json.dumps(node, sort_keys=True)


def main(folder: str) -> None:
    """Evaluates what standard input asks for over the rows in the folder: `kept.npy`, or what is wrong on standard
    output."""
    request = json.load(sys.stdin)
    table = pa.ipc.open_file(pa.memory_map(f"{folder}/rows.arrow")).read_all()
    _limit(request["max_bytes"] + table.nbytes, request["max_seconds"])
    wrong = ""
    try:
        kept = [rows_where(table, condition) for condition in request["conditions"]]
        np.save(f"{folder}/kept.npy", np.stack(kept))
    except UsageError as error:
        wrong = str(error)
    except MemoryError:
        sys.exit(request["out_of_memory"])
    print(json.dumps(wrong))


def _limit(more_bytes: int, seconds: float) -> None:
    """So many more bytes of memory, and processor time for both of DuckDB's threads, should nobody wait any more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:  # elsewhere than on Linux an address space cannot be limited
        limit = pages * resource.getpagesize() + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(2 * seconds) + 1, int(2 * seconds) + 1))


def _first_line(error: object) -> str:
    return str(error).partition("\n")[0][:300]


if __name__ == "__main__":
    main(sys.argv[1])
