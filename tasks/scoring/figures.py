"""A run's statistics as the figures of a protocol: the number if it was measured that way, else the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bfr_models.metrics.protocols import MetricProtocol, protocol

_STATISTIC = {"deg": "identity_degrees_gt", "ids": "identity_degrees_gt", "lmd": "lmd_dlib_5"}
"""Metrics that papers call by another name than this project."""

_OURS = "the run's recogniser"


def figures(name: str, settings: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the protocol `name`: {name, source, differs, metrics: {metric: {value, network, resize, colour,
    reference, unit, better}}}. A metric that was measured in another way, or not at all, is null, with a `why`.

    `settings` has the `recogniser` and the `measures` of run.json.
    """
    chosen = protocol(name)
    found = {
        name: asdict(metric) | _figure(_STATISTIC.get(name, name), metric, settings, statistics)
        for name, metric in chosen.metrics.items()
    }
    return chosen.to_json() | {"metrics": found}


def _figure(
    name: str, metric: MetricProtocol, settings: Mapping[str, Any], statistics: Mapping[str, Any]
) -> dict[str, Any]:
    measured: Mapping[str, Any] | None = statistics.get(name)
    if measured is None:
        return {"value": None, "why": "not measured in this run: see --metrics"}
    value = measured.get("mean", measured.get("value"))
    if value is None:
        return {"value": None, "why": measured["why"]}
    network = _network(name, settings)
    if metric.network not in (None, network, _OURS):
        return {"value": None, "why": f"expected the network {metric.network}, found {network}: see {name}"}
    if name == "fid" and (metric.reference == "gt") != (measured["reference"] == "gt"):
        wanted = "the ground truth" if metric.reference == "gt" else "FFHQ's statistics, by --fid-reference"
        return {"value": None, "why": f"expected a distance to {wanted}, found one to {measured['reference']}"}
    return {"value": value, "network": network}


def _network(name: str, settings: Mapping[str, Any]) -> str | None:
    """The network that measured a metric in this run; None if it needs none."""
    if name.startswith("identity"):
        return settings["recogniser"]["name"]
    if name == "lpips":
        return settings["measures"]["lpips"]["name"]
    return {"fid": "inception-2015-12-05", "niqe": "niqe-pristine", "lmd_dlib_5": "lmd_dlib_5"}.get(name)
