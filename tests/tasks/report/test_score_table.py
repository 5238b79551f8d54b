"""One table from several methods' rows: only rows that all share, and the same numbers in every format."""

import math

import pytest

from tasks.report.score_table import METRICS, score_table, to_latex, to_markdown

ROWS = 4


def scores(**given: list[float | None]) -> dict[str, list[float | None]]:
    return {metric.key: given.get(metric.key, [None] * ROWS) for metric in METRICS}


@pytest.fixture
def table() -> dict[str, object]:
    return score_table(
        {
            "passthrough": scores(psnr=[20.0, 21.0, 22.0, math.inf], seconds=[0.0, 0.0, 0.0, 0.0]),
            "clr_face": scores(psnr=[21.0, 20.0, 24.0, 30.0], seconds=[2.0, 2.0, 2.0, 2.0]),
        },
        {"passthrough": {"fd_net": 0.5, "fid": 3.0}, "clr_face": {"fd_net": 0.25}},
    )


def test_means_are_over_the_rows_that_every_method_has(
    table: dict[str, dict[str, dict[str, dict[str, object]]]],
) -> None:
    ours = table["methods"]["clr_face"]["psnr"]
    assert (ours["mean"], ours["n"]) == (pytest.approx(65 / 3), 3)  # the row of infinite PSNR is nobody's
    assert ours["wins"] == {"passthrough": pytest.approx(2 / 3)}
    assert table["methods"]["clr_face"]["seconds"]["wins"] == {"passthrough": 0.0}  # lower is better
    assert set(table["methods"]["clr_face"]) == {"psnr", "seconds"}  # no column of nulls


def test_markdown_has_a_row_per_method(table: dict[str, object]) -> None:
    lines = to_markdown(table).splitlines()
    assert lines[0] == "| method | PSNR, dB ↑ | s a face ↓ | fd_net ↓ |"
    assert lines[2].startswith("| passthrough | **21.00** [20.00, 22.00] |")
    assert lines[3].startswith("| clr_face | **21.67** [20.00, 24.00] 67% | **2.00** [2.00, 2.00] 0% | **0.2500** |")


def test_latex_escapes_names_and_marks_the_best(table: dict[str, object]) -> None:
    lines = to_latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}"
    assert r"passthrough & 21.00 & \textbf{0.00} & 0.5000 \\" in lines
    assert r"clr\_face & \textbf{21.67} & 2.00 & 0.2500 \\" in lines
