"""What `bfr doctor --cluster` makes of the facts of nodes, and how it gets them on a real cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from bfr_models.errors import UsageError
from flows.cli.app import app
from flows.cli.show_machine import doctor as show_doctor
from tasks.check_machine import Check, check_cluster, judge_node
from tasks.engine import node_facts
from tasks.engine.node_facts import Node, facts_here, known_weights
from tasks.storage.store import Store
from tests.other_code import other_version, redirect

WEIGHTS = {"a": "1" * 64, "b": "2" * 64}
CODE = {"bfr": "0123456789abcdef", "torch": "2.13.0"}
GOOD: dict[str, Any] = {
    "code": CODE, "weights": WEIGHTS, "torch": "2.13.0", "gpus": ["NVIDIA H200, 580.1, 141 GiB"], "cores": 16,
    "bf16": True, "memory": 2**37, "disk": 2**40, "prefect": "",
    "store": {"read": True, "write": True, "create": True, "why": ""},
}  # fmt: skip
NODE = Node("f" * 56, "one", "10.0.0.1", 16.0, 1.0, GOOD, (0.1, 0.2))


def checks(node: Node) -> dict[str, Check]:
    return {check.name: check for check in judge_node(node, CODE, WEIGHTS)}


def test_a_good_node_needs_nothing() -> None:
    found = checks(NODE)
    assert set(found) == {"code", "weights", "accelerator", "processors", "disk", "clock", "store", "prefect"}
    assert {check.state for check in found.values()} == {"ok"} and not any(check.advice for check in found.values())


def is_refused(**can: object) -> dict[str, Any]:
    return {"store": GOOD["store"] | can}


@pytest.mark.parametrize(
    ("name", "facts", "state", "found", "advice"),
    [
        ("code", {"code": CODE | {"bfr": "fedcba9876543210"}}, "bad", "bfr: expected 0123", "install the same version"),
        ("weights", {"weights": {"a": "3" * 64, "b": "2" * 64}}, "bad", "others than here: a", "the same files"),
        ("weights", {"weights": {"a": "1" * 64}}, "missing", "lacks b", "get them there"),
        ("accelerator", {"gpus": []}, "bad", "none; torch 2.13.0", "Ray was told of GPUs that are not there"),
        ("accelerator", {"torch": "2.13.0+cpu"}, "bad", "NVIDIA H200, 580.1", "torch's CUDA build"),
        ("accelerator", {"gpus": ["A", "B"]}, "missing", "Ray may use 1", "--num-gpus=2"),
        ("disk", {"disk": 2**30}, "bad", "1.0 GiB free", "at least 2 GiB"),
        ("store", {"store": None}, "missing", "not tried", "--store"),
        ("store", is_refused(read=False, write=False, why="PermissionError: no"), "bad", "can create: Perm", "keys"),
        ("store", is_refused(read=False, write=False, why="FileNotFoundError: x"), "bad", "x", "folder of the node's"),
        ("store", is_refused(create=False), "missing", "can read, write", "one driver at a time"),
        ("prefect", {"prefect": "ConnectError: refused"}, "missing", "ConnectError", "PREFECT_API_URL"),
    ],
)
def test_what_is_wrong_with_a_node_is_said_with_what_to_do(
    name: str, facts: dict[str, Any], state: str, found: str, advice: str
) -> None:
    check = checks(replace(NODE, facts=GOOD | facts))[name]
    assert check.state == state and found in check.found and advice in check.advice


@pytest.mark.parametrize(("skew", "within", "state"), [(-6.0, 0.5, "bad"), (6.0, 2.0, "ok"), (900.0, 2.0, "bad")])
def test_a_clock_is_wrong_where_that_is_certain(skew: float, within: float, state: str) -> None:
    check = checks(replace(NODE, skew=(skew, within)))["clock"]
    assert check.state == state and check.found.startswith(f"{skew:+.2f} s")


def test_the_skew_is_that_of_the_fastest_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seconds ahead; the way back takes longer than the way there, but for the third question."""
    now = iter([0.0, 4.0, 10.0, 13.0, 20.0, 20.2, 30.0, 31.0, 40.0, 45.0])
    there = iter([3.0, 13.0, 23.1, 33.0, 43.0])
    monkeypatch.setattr(node_facts.time, "time", lambda: next(now))
    assert node_facts._skew(lambda: next(there)) == (pytest.approx(3.0), pytest.approx(0.1))


def test_a_node_that_says_nothing_is_one_line() -> None:
    (check,) = judge_node(replace(NODE, facts={}, silent="no answer in 60 s"), CODE, WEIGHTS)
    assert (check.state, check.found) == ("bad", "no answer in 60 s") and "ray status" in check.advice


def test_this_machine_has_what_it_ships_and_a_store_that_takes_conditions(tmp_path: Path) -> None:
    Store(str(tmp_path)).write(node_facts.SIGN, b"1")
    facts = facts_here(str(tmp_path), "http://me:hush@127.0.0.1:9/api")
    assert facts["weights"] == known_weights() and "difface-face128-prior" in facts["weights"]
    assert facts["store"] == {"read": True, "write": True, "create": True, "why": ""}
    assert [path.name for path in tmp_path.iterdir()] == [node_facts.SIGN], "nothing is left"
    assert "ConnectError" in facts["prefect"] and "hush" not in facts["prefect"]
    assert facts_here(str(tmp_path / "another"))["store"]["why"].startswith("FileNotFoundError")


def test_prefects_server_answers(prefect_server: str) -> None:
    assert facts_here(None, prefect_server)["prefect"] == ""


def test_without_a_cluster_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UsageError, match=r"expected RAY_ADDRESS to name a cluster \(host:6379\), found none"):
        check_cluster()


def test_the_table_names_each_node_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [vars(replace(check, node="one (10.0.0.1)")) for check in checks(replace(NODE, skew=(60.0, 1.0))).values()]
    show_doctor(rows)
    said = capsys.readouterr().out
    assert said.count("10.0.0.1") == 1 and "+60.00 s" in said and "NTP" in said


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A real cluster: its head, and what adds a node with variables of its own."""
    import ray
    from ray.cluster_utils import Cluster

    from tasks.engine.ray_token import prepare_token

    if ray.is_initialized():
        ray.shutdown()
    prepare_token()
    few = {"num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **few})
    monkeypatch.setenv("RAY_ADDRESS", made.address)

    def add(**variables: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return made.add_node(num_cpus=1, **few)

    yield add
    ray.shutdown()
    made.shutdown()


@pytest.mark.long
def test_three_nodes_each_say_their_own(
    cluster: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is well, one has other code and lacks a weight, one has stopped answering."""
    monkeypatch.setattr(node_facts, "ANSWER_SECONDS", 90.0)
    site = redirect(tmp_path / "site", other_version(tmp_path / "other"))
    other = cluster(PYTHONPATH=site, BFR_WEIGHTS=str(tmp_path / "none"))
    frozen = cluster()
    raylet = psutil.Process(frozen.all_processes["raylet"][0].process.pid)
    raylet.suspend()
    try:
        store = str(tmp_path / "store")
        asked = CliRunner().invoke(app, ["doctor", "--cluster", "--store", store, "--json"])
    finally:
        raylet.resume()
    rows = json.loads(asked.stdout)
    assert asked.exit_code == 1 and len({row["node"] for row in rows}) == 3, asked.output
    by_state = {
        next(node.node_id for node in (other, frozen) if node.node_id.startswith(row["node"].split()[-1])): row
        for row in rows
        if row["state"] == "bad"
    }
    assert "install the same version" in by_state[other.node_id]["advice"]
    silent = ("no answer in", "its process did not live to answer")  # as Ray gives the node up later or sooner
    assert by_state[frozen.node_id]["found"].startswith(silent) and len(by_state) == 2
    for name in ("store", "clock"):
        assert [row["state"] for row in rows if row["name"] == name] == ["ok", "ok"]
    assert not [path for path in Path(store).rglob("*") if path.is_file()], "nothing is left"
