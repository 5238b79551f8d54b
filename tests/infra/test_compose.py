"""compose.yaml: every service is well before the next one starts, and nothing is open or has a password of ours."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.infra.files import INFRA, read_yaml

COMPOSE: dict[str, Any] = read_yaml(INFRA / "compose.yaml")[0]
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOT = {name for name, service in SERVICES.items() if service["restart"] == "no"}
# https://github.com/compose-spec/compose-spec/blob/main/05-services.md: those in use here
KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "environment", "healthcheck", "image", "init", "ports",
    "profiles", "read_only", "restart", "security_opt", "shm_size", "tmpfs", "volumes",
}  # fmt: skip


def test_what_a_cluster_is_made_of_is_there() -> None:
    assert SERVICES.keys() >= {
        "postgres",
        "store",
        "prefect-server",
        "prefect-worker",
        "ray-head",
        "ray-worker",
        "demo",
    }
    assert {"bucket", "demo", "deploy"} == ONE_SHOT
    assert {key for service in SERVICES.values() for key in service} <= KEYS
    assert "profiles" not in SERVICES["demo"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_dependencies_are_waited_for(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        assert how == {"condition": expected}
        assert other in ONE_SHOT or SERVICES[other]["healthcheck"]["test"][0] == "CMD"
        assert "profiles" not in SERVICES[other] or SERVICES[name]["profiles"] == SERVICES[other]["profiles"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_only_loopback_is_open(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    image = SERVICES[name]["image"]
    assert re.search(r"(:\$?\{?[\w.-]+|:-bfr:cpu\})$", image) and not image.endswith(":latest")


@pytest.mark.parametrize("name", sorted(name for name, service in SERVICES.items() if "BFR_IMAGE" in service["image"]))
def test_our_containers_may_write_nothing_and_gain_nothing(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] and service["init"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/tmp", "/home/bfr:uid=10001,gid=10001,mode=0700"]


def test_no_password_has_a_default() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|AUTH_STRING", variable):
                assert re.fullmatch(r"(bfr:)?\$\{[A-Z_]+:\?[^}]+\}", value), f"{name}: {variable}"
    clusters = (INFRA / "clusters.md").read_text()
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (INFRA / "compose.yaml").read_text()))
    assert asked == set(re.search(r"for name in ([A-Z_ ]+);", clusters)[1].split())  # type: ignore[index]


def test_mounted_files_exist() -> None:
    volumes = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    for source in volumes:
        assert (INFRA / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
