"""The progress of a run: its bar or its lines, with what became of its faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import MofNCompleteColumn

from flows.progress.bars import ProgressDisplay
from flows.progress.figures import RunFigures


class RunProgress(ProgressDisplay):
    """Counts rows, and what became of them, as their shards are committed."""

    columns = (MofNCompleteColumn,)

    def __init__(self, figures: RunFigures) -> None:
        self._figures = figures  # first: a bar is drawn as soon as it is made
        super().__init__(figures.method, figures.total, figures.done)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a shard that is done."""
        self._figures.add(record)
        self.reach(self._figures.done)

    def detail(self) -> str:
        pace = self._figures.pace.partition(" rows, ")[2]
        return f"{pace}; {self._figures.crew}\n{self._figures.counts}"

    def figures(self) -> dict[str, Any]:
        return self._figures.as_dict

    def text(self, rate: float) -> str:
        return f"{self._figures.pace}; {self._figures.counts}; {self._figures.crew} -> {self._figures.destination}"
