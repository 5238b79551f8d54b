"""A condition sees a row's own columns and nothing else."""

import pyarrow as pa
import pytest

from bfr_models.errors import UsageError
from tasks.datasets.evaluate_conditions import check_condition, rows_where
from tasks.datasets.image_column import IMAGE
from tasks.datasets.row_groups import plain_columns

ROWS = pa.table(
    {
        "id": ["a", "b", "c"],
        "x": pa.array([1.0, None, 3.0], pa.float32()),
        "odd name": [1, 2, 3],
        "faces": pa.array([[{"sharpness": 4.0}], [], [{"sharpness": 1.0}, {"sharpness": 9.0}]]),
        "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
    }
)


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("x > 0.5", [True, False, True]),  # null is no
        ("x > 0.5 and id != 'c'", [True, False, False]),
        ('x is null or "odd name" in (3)', [False, True, True]),
        ("kind = 'u' -- a comment", [True, False, True]),
        ("len(faces) = 1 and faces[1].sharpness > 2", [True, False, False]),
        ("list_max([f.sharpness for f in faces]) > 5", [False, False, True]),
        ("id like 'a%' or id ~ '[bc]'", [True, True, True]),
        ("case when x between 1 and 2 then true else false end", [True, False, False]),
    ],
)
def test_a_condition_is_sql_over_the_columns(condition: str, kept: list[bool]) -> None:
    assert rows_where(ROWS, condition).tolist() == kept


@pytest.mark.parametrize("condition", ["width > 1", '"Width" > 1', "id = 'a' or rows.WIDTH is null"])
def test_a_column_that_is_there_twice_but_for_case_is_refused(condition: str) -> None:
    rows = pa.table({"id": ["a"], "Width": [1], "width": [9], "size": [{"width": 3}]})
    with pytest.raises(UsageError, match=r"found 'Width' and 'width'.*SQL does not tell them apart"):
        rows_where(rows, condition)
    assert rows_where(rows, "id = 'a' and size.width = 3").tolist() == [True]


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "x",  # no yes or no
        "id",
        "*",
        "true; drop table rows",
        "true) AS kept, (false",
        "true) AS kept FROM rows WHERE (false",
        "true) FROM rows UNION SELECT (true",
        "x in (select 1)",
        "exists(from 'a.csv')",
        "x > (select max(x) from rows)",
        "read_csv('/etc/passwd') is null",
        "read_text('/etc/passwd') = ''",
        "exists(select * from read_parquet('s3://bucket/a.parquet'))",
        "(attach 'x.db')",
        "attach 'x.db'",
        "copy rows to 'x.csv'",
        "pragma version",
        "set memory_limit = '100GB'",
        "install httpfs",
        "load httpfs",
        "getenv('HOME') = ''",
        "current_setting('memory_limit') = ''",
        "x > random()",
        "now() > '2020-01-01'",
        "nextval('s') = 1",
        "pg_sleep(9) is null",
        "sum(x) > 1",
        "x > avg(x) over ()",
        "unnest([true])",
        "columns(*) > 1",
        "x > $1",
        "x > ?",
        "list_sum(range(1000000000000)) > 1",
        "length(repeat('x', 1000000000000)) > 1",
        "id::int > 1",  # does not convert
        "(" * 900 + "true" + ")" * 900,
        "true or " * 2000 + "true",
        "id = '\ud800'",
    ],
)
def test_what_is_more_than_a_condition_is_refused(condition: str) -> None:
    with pytest.raises(UsageError):
        rows_where(ROWS, condition)


def test_a_wrong_column_is_answered_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r'columns id, x, odd name, faces, kind; found.*"identity"'):
        check_condition("identity > 0.5", ROWS.schema)


def test_a_condition_that_is_no_yes_or_no_is_refused_by_its_type() -> None:
    with pytest.raises(UsageError, match="true or false, found 'x \\+ 1', which is FLOAT"):
        check_condition("x + 1", ROWS.schema)


def test_pictures_are_no_columns_of_a_condition() -> None:
    schema = pa.schema([("id", pa.string()), ("restored", IMAGE), ("raw", pa.binary()), ("n", pa.list_(pa.int8()))])
    assert plain_columns(schema) == ["id", "n"]
