"""The settings of a comparison of methods."""

from __future__ import annotations

from tasks.config.evaluate import EvaluateRun


def test_no_secret_of_an_address_is_in_what_prefect_keeps() -> None:
    def url(name: str) -> str:
        return f"https://reader:hush@host/{name}?X-Amz-Signature=hush"

    run = EvaluateRun(source=url("a"), destination=url("b"), methods=("difface",), fid_reference=url("c.npz"))
    assert "hush" not in run.model_dump_json() and "https://host/c.npz" in run.model_dump_json()
    assert run.restorations()[0].fid_reference == url("c.npz")
