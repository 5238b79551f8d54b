"""The card of a run names its files as Hugging Face documents it, so that `load_dataset` takes the run's folder."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import yaml

from tasks.render_report import render_report
from tasks.runs.manifest import read_manifest
from tasks.storage.store import Store
from tests import support


def configurations(card: str) -> dict[str, str]:
    """As `load_dataset` reads them: the YAML between the first two lines of dashes."""
    _, header, _ = card.split("---\n", 2)
    return {one["config_name"]: one["data_files"] for one in yaml.safe_load(header)["configs"]}


def test_the_card_takes_exactly_the_rows(tmp_path: Path) -> None:
    rows = support.make_rows(6)
    rows[2]["image"] = {"bytes": b"no picture", "path": None}
    support.write_parquet(tmp_path / "src" / "a.parquet", rows)
    run = support.make_run(tmp_path, recogniser="none", max_rejects=1.0)
    record = support.finished_run(run)
    store = Store(run.destination)
    found = configurations((tmp_path / "dst" / "README.md").read_text())
    assert list(found) == ["default", "rejected"]
    for name, folder in (("default", "data"), ("rejected", "rejected")):
        taken = [path for path in store.list() if fnmatch(path, found[name])]
        assert taken == sorted(entry[folder] for entry in read_manifest(store) if entry[folder])
    (tmp_path / "dst" / "README.md").unlink()
    render_report(run.destination)
    assert record["method"]["fingerprint"] in (tmp_path / "dst" / "README.md").read_text()


def test_no_configuration_without_rows(tmp_path: Path) -> None:
    support.write_parquet(tmp_path / "src" / "a.parquet", support.make_rows(2))
    support.finished_run(support.make_run(tmp_path, recogniser="none"))
    assert list(configurations((tmp_path / "dst" / "README.md").read_text())) == ["default"]
