"""Prefect's first database: as its migrations would have made it, laid out whole or not at all."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

from flows.orchestration import first_database
from flows.orchestration.first_database import (
    SCHEMA,
    lay_out,
    migrated_schema,
    migrations,
    provide_database,
    revision_of,
    schema_of,
)


def test_the_schema_has_the_newest_migration() -> None:
    """If not, `python -m flows.orchestration.first_database` writes it again."""
    folder = migrations()
    scripts = ScriptDirectory(str(folder), version_locations=[str(folder / "versions" / "sqlite")])
    assert scripts.get_heads() == [revision_of(SCHEMA.read_text())]


@pytest.mark.long
def test_the_schema_is_what_the_migrations_make() -> None:
    """But for the order of a table's constraints, which alembic does not fix."""

    def lines(schema: str) -> list[str]:
        return sorted(line.strip().rstrip(",") for line in schema.splitlines())

    assert lines(migrated_schema()) == lines(SCHEMA.read_text())


def provided(path: Path) -> bool:
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{path}"}):
        provide_database()
    return path.exists()


def test_a_database_is_laid_out_once(tmp_path: Path) -> None:
    path = tmp_path / "home" / "prefect.db"
    assert provided(path) and schema_of(path) == SCHEMA.read_text()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'of the user'")
    provided(path)
    assert "of the user" in schema_of(path) and os.listdir(path.parent) == ["prefect.db"]


def test_nothing_is_laid_out_that_prefect_does_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = SCHEMA.read_text().replace(revision_of(SCHEMA.read_text()), "0123456789ab")
    monkeypatch.setattr(first_database, "SCHEMA", tmp_path / "later.sql")
    (tmp_path / "later.sql").write_text(later)
    assert not provided(tmp_path / "prefect.db")


def test_a_schema_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        lay_out("CREATE TABLE one (a); CREATE TABLE one (a);", tmp_path / "prefect.db")
    assert os.listdir(tmp_path) == []
