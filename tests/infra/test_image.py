"""The Dockerfile: versions of the lock, a user of its own, no secret, no download when a container runs."""

from __future__ import annotations

import re
import tomllib

from tests.infra.files import INFRA, locked
from tests.support import ROOT

TEXT = (INFRA / "Dockerfile").read_text()
INSTRUCTIONS = [
    tuple(line.split(maxsplit=1))
    for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", TEXT)).splitlines()
    if line.strip()
]


def values(instruction: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == instruction]


def stages() -> dict[str, str]:
    """Which stage each one is made from, in their order."""
    return {made: source for source, made in (re.split(" AS ", rest) for rest in values("FROM"))}


def test_python_is_the_oldest_that_the_package_supports() -> None:
    """The lock was made with it, and Ray's nodes must have one and the same."""
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    image = next(value for value in values("ARG") if value.startswith("PYTHON_IMAGE="))
    assert re.fullmatch(rf"PYTHON_IMAGE=docker\.io/library/python:{re.escape(oldest)}\.\d+-slim-bookworm", image)


def test_every_stage_has_a_pinned_base() -> None:
    known: set[str] = set()
    for made, source in stages().items():
        assert source == "${PYTHON_IMAGE}" or source in known
        known.add(made)
    assert {"cpu", "cuda", "aws"} <= known
    assert list(stages())[-1] == "cpu", "what `docker build` makes without --target"


def test_every_package_is_installed_by_the_lock() -> None:
    installs = re.findall(r"pip install ([^&]*)", " ".join(values("RUN")))
    assert len(installs) >= 6
    assert all("--constraint requirements.lock" in each or "--no-deps /wheel/" in each for each in installs)
    assert {"ray", "prefect", "torch", "hatchling", "boto3"} <= locked().keys()


def test_the_containers_user_is_no_root_and_has_a_name() -> None:
    before_the_last = TEXT.split(" AS runtime")[1]
    assert re.findall(r"(?m)^USER (.*)$", before_the_last) == ["10001:10001", "root", "10001:10001"]
    assert "useradd --uid 10001" in TEXT


def test_nothing_secret_or_foreign_gets_in() -> None:
    assert not values("ADD") and "curl" not in TEXT and "sudo" not in TEXT
    assert not re.search(r"(?i)(password|secret|access_key|_token)\s*=", " ".join(values("ENV") + values("ARG")))
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if line and line[0] not in "#!") == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {part for value in values("COPY") if "--from" not in value for part in value.split()[:-1]}
    assert copied == allowed and all((ROOT / path).exists() for path in allowed)


def test_a_container_starts_no_ray_that_lets_everyone_in() -> None:
    assert any("RAY_AUTH_MODE=token" in value for value in values("ENV"))
