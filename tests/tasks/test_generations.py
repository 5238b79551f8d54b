"""Which generation is current, which go, and what a rollback holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from bfr_models.errors import BfrError, UsageError
from tasks.config.resolve import resolve_run
from tasks.generations import (
    choose_generation,
    expire_generations,
    list_generations,
    rollback_generation,
    switch_generation,
)
from tasks.runs import pointer as pointer_module
from tasks.runs.pointer import Pointer, read_pointer
from tasks.storage.store import Store
from tests import support
from tests.generations import Ask, alive, current, folder, interrupted


def test_rollback_lasts(ask: Ask) -> None:
    first = support.finished_generation(ask())["generation"]
    second = support.finished_generation(run := ask(seed=1))["generation"]
    assert rollback_generation(run.destination).generation == first == current(run)
    with pytest.raises(UsageError, match=f"expected an earlier generation than {first}"):
        rollback_generation(run.destination)
    outcome = support.finished_generation(run)  # the schedule goes on, with the settings of the second
    assert outcome["held_back"] == ["it was rolled back"] and current(run) == first
    switch_generation(run.destination, second, force=True)
    assert support.finished_generation(run)["held_back"] == [] and current(run) == second


def test_a_rollback_to_an_interrupted_update_is_refused(ask: Ask, tmp_path: Path) -> None:
    first = support.finished_generation(ask())["generation"]
    second = support.finished_generation(ask(seed=1))["generation"]
    support.write_parquet(tmp_path / "src" / "c.parquet", support.make_rows(1, first=20))
    interrupted(ask(), first, 0)
    with pytest.raises(UsageError, match=f"expected a finished generation, found {first} unfinished"):
        rollback_generation(ask().destination)
    assert current(ask()) == second


def test_old_generations_expire_and_the_current_one_never(ask: Ask) -> None:
    names = [support.finished_generation(ask(seed=seed, keep_generations=9))["generation"] for seed in range(4)]
    run = ask()
    with pytest.raises(UsageError, match=f"expected a comparison of {names[0]} with {names[3]}, found none"):
        switch_generation(run.destination, names[0])
    switch_generation(run.destination, names[0], force=True)
    assert expire_generations(run.destination, 2) == names[1:3]
    assert [row["name"] for row in list_generations(run.destination)] == [names[0], names[3]]
    assert sorted(path.name for path in Path(run.destination, "generations").rglob("*") if path.is_file()) == sorted(
        path.name for name in (names[0], names[3]) for path in folder(run, name).rglob("*") if path.is_file()
    )
    with pytest.raises(UsageError, match=f"unknown generation '{names[1]}'"):
        switch_generation(run.destination, names[1])
    again = support.finished_generation(ask(seed=1))["generation"]
    assert again == f"0005{names[1][4:]}", "an expired one is not gone on with"
    assert expire_generations(run.destination, 1) == [names[0]] and current(run) == again


def test_a_rolled_back_generation_expires_before_the_one_that_a_rollback_goes_to(ask: Ask) -> None:
    first = support.finished_generation(ask())["generation"]
    support.finished_generation(ask(seed=1))
    rollback_generation(ask().destination)
    third = support.finished_generation(run := ask(seed=2))["generation"]
    assert alive(run) == [first, third]
    assert rollback_generation(run.destination).generation == first


@pytest.mark.usefixtures("faulty")
def test_a_generation_that_is_held_back_does_not_expire_the_one_that_a_rollback_goes_to(ask: Ask) -> None:
    dlib = partial(ask, recogniser="dlib", gt_column="image")
    first = support.finished_generation(dlib())["generation"]
    second = support.finished_generation(dlib(seed=1))["generation"]
    third = support.finished_generation(run := dlib(method="faulty", max_identity_drop=0.0001))
    assert third["held_back"] and alive(run) == [first, second, third["generation"]]
    assert rollback_generation(run.destination).generation == first


def test_with_one_generation_kept_a_rollback_lasts_and_nothing_is_restored_again(ask: Ask) -> None:
    first = support.finished_generation(ask())["generation"]
    second = support.finished_generation(ask(seed=1))["generation"]
    rollback_generation(ask().destination)
    before = support.snapshot(Path(ask().destination, "generations"))
    for _ in range(2):  # nights
        outcome = support.finished_generation(run := ask(seed=1, keep_generations=1))
        assert (outcome["generation"], outcome["current"], outcome["expired"]) == (second, first, [])
    assert support.snapshot(Path(run.destination, "generations")) == before


def test_a_rollback_holds_for_a_later_generation_of_the_same_settings(ask: Ask) -> None:
    first = support.finished_generation(ask())["generation"]
    second = support.finished_generation(ask(seed=1))["generation"]
    rollback_generation(ask().destination)
    third = support.finished_generation(run := ask(seed=2, keep_generations=1))["generation"]
    assert alive(run) == [third] and first != second
    again = support.finished_generation(ask(seed=1))
    assert again["generation"] == f"0004{second[4:]}"
    assert again["held_back"] == ["it was rolled back"] and current(run) == third
    switch_generation(run.destination, again["generation"], force=True)
    assert support.finished_generation(ask(seed=1))["held_back"] == []


def test_an_expiry_that_was_killed_is_finished_by_the_next(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    first = support.finished_generation(ask())["generation"]
    support.finished_generation(run := ask(seed=1))
    deleted: list[str] = []

    def killed(store: Store, path: str) -> None:
        deleted.append(path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            expire_generations(run.destination, 1)
    assert deleted[0].endswith(f"{first}/run.json")
    assert first not in read_pointer(Store(run.destination)).live
    expire_generations(run.destination, 1)
    assert not any(path.is_file() for path in folder(run, first).rglob("*"))


def test_of_two_writers_the_second_sees_what_the_first_did(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [support.finished_generation(ask(seed=seed, keep_generations=9))["generation"] for seed in range(3)]
    destination, read, raced = ask().destination, pointer_module._read, [False]

    def slow_read(store: Store) -> tuple[Pointer, str | None]:
        found = read(store)
        if not raced[0]:  # another writer, between our look and our write
            raced[0] = True
            switch_generation(destination, names[0], force=True)
        return found

    monkeypatch.setattr(pointer_module, "_read", slow_read)
    with pytest.raises(BfrError, match=f"expected {names[2]} to be current, found {names[0]}"):
        switch_generation(destination, names[1], force=True, instead_of=names[2])
    assert read_pointer(Store(destination)).generation == names[0]


def test_many_writers_lose_no_generation(ask: Ask) -> None:
    asked = [ask(seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as writers:
        names = list(writers.map(choose_generation, [resolve_run(run) for run in asked] * 2))
    assert names[:4] == names[4:] and len(set(names)) == 4
    assert sorted(name[:4] for name in names[:4]) == ["0001", "0002", "0003", "0004"]
    assert sorted(read_pointer(Store(ask().destination)).begun) == sorted(set(names))


def test_another_source_or_a_run_in_its_place_is_refused(ask: Ask, tmp_path: Path) -> None:
    choose_generation(resolve_run(ask()))
    support.write_parquet(tmp_path / "other" / "a.parquet", support.make_rows(1))
    with pytest.raises(UsageError, match=r"expected the source .*src of the generations .* use another destination"):
        choose_generation(resolve_run(ask(source=str(tmp_path / "other"))))
    support.finished_run(support.make_run(tmp_path, destination=str(tmp_path / "run"), recogniser="none"))
    with pytest.raises(UsageError, match="found a run of `bfr restore`"):
        choose_generation(resolve_run(ask(destination=str(tmp_path / "run"))))
