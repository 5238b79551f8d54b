"""Names stay as they were, whatever else they are: none leads out, none is given twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.export.names import MAX_PATH, MAX_STEP, Names, safe_path, with_ending, with_suffix

GOOD = ["a.jpg", "a/b/c/é 100% #1 [x].jpg", " blank.png", "J. Smith Jr./1.tif", "n" * 250 + ".jpg", "a\\b.jpg", "ü.PNG"]


@pytest.mark.parametrize("path", GOOD)
def test_good_names_stay(path: str) -> None:
    assert safe_path(path) == path


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("a/../b.jpg", "a/b.jpg"),
        ("./a//b.jpg", "a/b.jpg"),
        ("C:/x/y.jpg", "x/y.jpg"),
        ("D:\\scans\\1931\\a.jpg", "scans/1931/a.jpg"),
        ("\\\\nas\\scans\\b.jpg", "nas/scans/b.jpg"),
        ("\\\\?\\c:\\scans\\..\\c.jpg", "scans/c.jpg"),
        ("scans\\a.jpg", "scans\\a.jpg"),  # elsewhere a name may have a backslash
        ("a\0b\n.jpg", "a_b_.jpg"),
        ("\udcff.jpg", "_.jpg"),
        ("nul", "_nul"),
        ("x/Com1.jpg", "x/_Com1.jpg"),
        ("CON .tar.gz", "_CON .tar.gz"),
        ("contract.jpg", "contract.jpg"),
        ("s3://bucket/a/b%20c.jpg", "a/b c.jpg"),
        ("https://user:secret@host/x/..%2f..%2fy.png?sig=1", "x/y.png"),
        ("..", "unnamed"),
        ("", "unnamed"),
    ],
)
def test_hostile_names_become_harmless(path: str, safe: str) -> None:
    assert safe_path(path) == safe


@given(st.text(st.characters(codec=None), max_size=2000), st.sampled_from(["", ".json", ".png"]))  # type: ignore[arg-type]
def test_any_text_gives_a_name_that_a_disk_takes(path: str, ending: str) -> None:
    made = with_ending(safe_path(path), ending)
    steps = made.split("/")
    assert not made.startswith("/") and not {"", ".", ".."} & set(steps) and "\0" not in made
    assert all(len(step.encode()) <= MAX_STEP for step in steps) and len(made.encode()) <= MAX_PATH + MAX_STEP


def test_long_names_are_cut_and_stay_apart() -> None:
    first, second = (with_ending("é" * 126 + f"{i}.jpg", ".json") for i in (1, 2))
    assert first != second and first.endswith(".jpg.json") and len(first.encode()) <= MAX_STEP
    assert with_suffix("a/b.tar.gz", "_new") == "a/b.tar_new.gz" and with_suffix("a/.x", "_new") == "a/.x_new"


def test_a_name_is_given_once() -> None:
    names = Names()
    assert [names.give("a/b.jpg") for _ in range(3)] == ["a/b.jpg", "a/b~2.jpg", "a/b~3.jpg"]
    names.take(["a/c.jpg"])
    assert names.give("a/c.jpg") == "a/c~2.jpg"
    assert names.give("A/B.JPG") == "A/B.JPG"
    assert names.give("a") == "a~2", "it is a folder"
    assert names.give("a/b.jpg/c.jpg") == "a/b.jpg~2/c.jpg", "its folder is a file"
    assert len({names.give("x.png") for _ in range(5000)}) == 5000


def test_a_disk_that_ignores_case_gets_other_names() -> None:
    names = Names(ignores_case=True)
    assert [names.give(name) for name in ("a.jpg", "A.JPG", "\u00e9.png", "e\u0301.png")] == [
        "a.jpg", "A~2.JPG", "\u00e9.png", "e\u0301~2.png",
    ]  # fmt: skip
