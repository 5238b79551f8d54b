"""A run's figures for Prometheus: `--metrics-port`. Off by default, and on loopback unless it is told otherwise.

The names are by Prometheus' conventions (https://prometheus.io/docs/practices/naming/); counters count what this
process has seen done, as they begin anew with each process. `infra/monitoring` has a scrape job and panels for them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.progress.figures import RunFigures

if TYPE_CHECKING:
    from prometheus_client import Metric

_log = logging.getLogger(__name__)


@contextmanager
def metrics_endpoint(figures: RunFigures, port: int | None, address: str) -> Iterator[None]:
    """Serves them at http://ADDRESS:PORT/metrics while the block runs; without a port does nothing. A port that cannot
    be had is a warning: the run is worth more than its figures."""
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(_Collector(figures))
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        _log.warning(
            "expected to serve metrics at %s:%d, found %s; the run goes on without: use another --metrics-port",
            address, port, error.strerror or error,
        )  # fmt: skip
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Collector:
    """Reads the figures when they are asked for."""

    def __init__(self, figures: RunFigures) -> None:
        self._figures, self._began = figures, time.time()

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        found = self._figures
        ready, wanted = found.workers()
        run = {"method": found.method, "destination": found.destination}
        yield InfoMetricFamily("bfr_run", "The run that this process does.", value=run)
        yield GaugeMetricFamily("bfr_run_start_time_seconds", "When its workers were started, Unix time.", self._began)
        yield GaugeMetricFamily("bfr_run_rows", "Rows of the run.", found.total)
        yield GaugeMetricFamily("bfr_run_rows_done", "Rows that are done, by this process or before.", found.done)
        yield GaugeMetricFamily("bfr_workers_ready", "Workers that have loaded the method.", ready)
        yield GaugeMetricFamily("bfr_workers_wanted", "Workers that there are to be.", wanted)
        yield CounterMetricFamily("bfr_shards", "Shards done.", found.shards)
        yield CounterMetricFamily("bfr_rows", "Rows done, rejected ones included.", found.done - found.done_before)
        yield CounterMetricFamily(
            "bfr_accelerator_seconds", "Time in which workers ran the method.", found.accelerator_seconds
        )
        faces = CounterMetricFamily("bfr_faces", "Faces by what became of them.", labels=["outcome"])
        rejected = CounterMetricFamily("bfr_rejected_rows", "Rejected rows by reason.", labels=["code"])
        for family, counts in ((faces, found.outcomes), (rejected, found.rejects)):
            for name, count in dict(counts).items():
                family.add_metric([name], count)
            yield family
