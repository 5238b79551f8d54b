"""What a user meets: exit codes, stable codes, names that are known."""

import pickle

from bfr_models.errors import BfrError, RowError, UsageError, unknown


def test_usage_errors_have_an_exit_code_of_their_own() -> None:
    assert (BfrError.exit_code, UsageError.exit_code) == (1, 2)


def test_a_rejected_row_survives_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(RowError("no_face", "none in 640 x 480")))
    assert (error.code, error.detail, str(error)) == ("no_face", "none in 640 x 480", "no_face: none in 640 x 480")


def test_an_unknown_name_lists_the_known_ones() -> None:
    assert str(unknown("method", "diface", ["passthrough", "difface"])) == (
        "unknown method 'diface'; known: passthrough, difface; did you mean 'difface'?"
    )
