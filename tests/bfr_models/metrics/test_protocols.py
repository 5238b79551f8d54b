"""Protocols are data that a report can carry, and name what differs between papers."""

import json
import subprocess
import sys

import pytest

from bfr_models.errors import UsageError
from bfr_models.metrics.frechet import INCEPTION
from bfr_models.metrics.protocols import PROTOCOLS, protocol


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_can_be_stored(name: str) -> None:
    stored = json.loads(json.dumps(protocol(name).to_json()))
    assert stored["name"] == name and stored["source"]
    for metric in stored["metrics"].values():
        assert metric["reference"] in ("gt", "lq", "ffhq", "none") and metric["unit"] and metric["colour"]
        assert metric["better"] in ("higher", "lower")


def test_what_is_called_fid_is_over_fids_network() -> None:
    assert {p.metrics["fid"].network for p in PROTOCOLS.values()} == {INCEPTION}
    references = {name: p.metrics["fid"].reference for name, p in PROTOCOLS.items()}
    assert references == {"default": "gt", "vqfr": "ffhq", "difface": "gt", "ntire2025": "ffhq"}


def test_an_angle_is_never_called_a_similarity() -> None:
    for p in PROTOCOLS.values():
        for name, metric in p.metrics.items():
            assert (metric.unit == "degrees") == name.startswith(("deg", "ids", "identity_degrees"))
            assert (metric.unit == "cosine") == name.startswith("identity_similarity")


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown protocol 'vqgan'; known: default, vqfr, difface, ntire2025"):
        protocol("vqgan")


def test_protocols_and_gates_need_no_torch() -> None:
    code = "import sys, bfr_models.metrics.protocols, bfr_models.metrics.identity_gates; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "bfr_models.metrics.protocols" in loaded and "torch" not in loaded
