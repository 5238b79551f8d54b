"""README.md of a run: a dataset card, by which Hugging Face's `load_dataset` takes the run's folder itself.

Its YAML names the files of the dataset, as in https://huggingface.co/docs/hub/datasets-manual-configuration: without it
plan and manifest, which are Parquet too, would be taken for rows.
"""

from __future__ import annotations

from typing import Any

import yaml

from tasks.runs.layout import CARD, DATA, REJECTED
from tasks.runs.outcomes import written_words
from tasks.runs.record import RunRecord
from tasks.storage.store import Store


def write_card(store: Store, record: RunRecord) -> None:
    """Puts the card of a finished run."""
    store.write(CARD, run_card(record).encode())


def run_card(record: RunRecord) -> str:
    """The card: the rows are the default configuration, those that were rejected have one of their own."""
    totals, method = record["totals"], record["method"]
    files = {"default": DATA if totals["restored"] else "", "rejected": REJECTED if totals["rejected"] else ""}
    configs = [{"config_name": name, "data_files": f"{folder}/*.parquet"} for name, folder in files.items() if folder]
    header: dict[str, Any] = {"configs": configs}
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False).rstrip(),
        "---",
        "",
        "# Restored images",
        "",
        f"{totals['rows']:,} images, of which `bfr restore` has {written_words(totals)}, with the method "
        f"`{method['name']}` (`{method['preset']}`, weights and parameters {method['fingerprint']}); "
        f"{totals['rejected']} could not be restored and are in the configuration `rejected`, each with its bytes and "
        "the reason. A restored face is an estimate of what was there, not a record of it: the columns "
        "`identity_similarity` and `faces` say how far to trust each.",
        "",
        "```python",
        'load_dataset("path/to/this/folder")["train"]',
        "```",
        "",
        "`run.json` has the settings and the statistics, `report/index.html` shows examples. `bfr export` writes the "
        "images back as files.",
        "",
        "Licences of the weights: " + ("; ".join(map(_terms, record["licences"])) or "none have terms of their own."),
    ]
    return "\n".join(lines) + "\n"


def _terms(weights: dict[str, Any]) -> str:
    note = ", no commercial use" if weights["non_commercial"] else ""
    return f"`{weights['weights']}`: {weights['licence'] or 'not known'}{note}"
