"""Prefect's database on a machine that has none yet: laid out from the schema that its migrations end with, since
running all of them takes seven seconds. Prefect then migrates it as any other, from that revision on.

`python -m flows.orchestration.first_database` writes the schema again, by the installed Prefect's migrations.
"""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path

SCHEMA = Path(__file__).with_name("prefect_database.sql")
_SQLITE = "sqlite+aiosqlite:///"


def provide_database() -> None:
    """Lays out the database that Prefect's settings name, if it is a file that is not there, and its migrations know
    the schema's revision."""
    from prefect.settings import get_current_settings

    url = get_current_settings().server.database.connection_url
    address = "" if url is None else url.get_secret_value()
    schema = SCHEMA.read_text(encoding="utf-8")
    is_known = any((migrations() / "versions" / "sqlite").glob(f"*_{revision_of(schema)}_*.py"))
    if is_known and address.startswith(_SQLITE) and "?" not in address and ":memory:" not in address:
        with suppress(OSError, sqlite3.Error):  # Prefect makes it, or says why not
            lay_out(schema, Path(address.removeprefix(_SQLITE)))


def migrations() -> Path:
    """The folder of the installed Prefect's migrations."""
    from prefect.server import database

    return Path(str(database.__file__)).parent / "_migrations"


def lay_out(schema: str, path: Path) -> None:
    """Makes a database, whole or not at all, unless there is one."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".bfr-") as folder:
        made = Path(folder) / path.name
        with closing(sqlite3.connect(made)) as connection:
            connection.executescript(schema)
        with suppress(FileExistsError):  # another process was faster
            os.link(made, path)


def revision_of(schema: str) -> str:
    """The last migration that a schema has."""
    found = re.search(r"INSERT INTO \"alembic_version\" VALUES\('(\w+)'\)", schema)
    assert found is not None, "a schema says which revision it is"
    return found[1]


def schema_of(path: Path) -> str:
    """The schema of a database without rows but its revision, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump()) + "\n"


def migrated_schema() -> str:
    """The schema that the installed Prefect's migrations make."""
    from prefect.server.database import provide_database_interface
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prefect.db"
        with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"{_SQLITE}{path}"}):
            asyncio.run(provide_database_interface().create_db())
        return schema_of(path)


if __name__ == "__main__":
    SCHEMA.write_text(migrated_schema(), encoding="utf-8")
