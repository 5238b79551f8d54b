"""The manifests: valid by the schemas of Kubernetes and KubeRay, and as tight as they say."""

from __future__ import annotations

import copy
import gzip
import json
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from tests.infra.files import KUBERNETES, OVERLAYS, Document, base, locked, overlay, pod_specs, ray_spec

# The specification of a RayJob, which holds that of a RayCluster: KubeRay's (Apache-2.0), without its descriptions.
RAY_SCHEMA = Path(__file__).with_name("rayjob-spec.schema.json.gz")
RAY_KINDS = ("RayCluster", "RayJob")


@cache
def objects() -> list[Document]:
    """All objects, each once: of the base, and of the overlays if kubectl is here to build them."""
    found = base()
    for name in OVERLAYS:
        with suppress(pytest.skip.Exception):
            found = [*found, *overlay(name)]
    return list({json.dumps(document, sort_keys=True): document for document in found}.values())


def by_kind(kind: str) -> list[Document]:
    return [found for found in objects() if found["kind"] == kind]


def containers(pod: Document) -> list[Document]:
    return [*pod["containers"], *pod.get("initContainers", [])]


def test_core_kinds_are_valid() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    checked = {found["kind"] for found in objects() if "ray.io" not in found["apiVersion"]}
    for found in objects():
        if "ray.io" not in found["apiVersion"]:
            validate.validate(found, "1.33", strict=True)
    assert checked >= {"Deployment", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget", "Service", "Namespace"}


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_rays_kinds_are_valid(kind: str) -> None:
    schema = closed(json.loads(gzip.decompress(RAY_SCHEMA.read_bytes())))
    found = by_kind(kind)
    if not found:
        pytest.skip("kubectl is not installed")
    validator = jsonschema.Draft202012Validator(schema if kind == "RayJob" else schema["properties"]["rayClusterSpec"])
    for each in found:
        validator.validate(each["spec"])


def closed(schema: Document) -> Document:
    """The schema, refusing what it does not name: an API server would drop that without a word."""
    if isinstance(schema, list):
        return [closed(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if isinstance(inner.get("properties"), dict) and not inner.get("x-kubernetes-preserve-unknown-fields"):
        inner.setdefault("additionalProperties", False)
    return inner


def test_a_misspelt_field_is_refused() -> None:
    schema = closed(json.loads(gzip.decompress(RAY_SCHEMA.read_bytes())))["properties"]["rayClusterSpec"]
    spec = copy.deepcopy(ray_spec(next(found for found in base() if found["kind"] == "RayCluster")))
    spec["autoscalerOptions"]["idleSeconds"] = 300
    with pytest.raises(jsonschema.ValidationError, match="idleSeconds"):
        jsonschema.validate(spec, schema)


def test_every_pod_keeps_to_the_restricted_standard() -> None:
    pods = [pod for found in objects() for pod in pod_specs(found)]
    assert len(pods) >= 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod.get("hostNetwork") and not any("hostPath" in volume for volume in pod.get("volumes", []))
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), container["name"]
            assert "memory" in container["resources"]["limits"]


def test_only_the_autoscalers_pod_has_a_token_of_kubernetes() -> None:
    for found in objects():
        for pod in pod_specs(found):
            is_head = any(container["name"] == "ray-head" for container in pod["containers"])
            assert pod["automountServiceAccountToken"] is is_head


def test_what_is_written_has_a_volume() -> None:
    for found in objects():
        for pod in pod_specs(found):
            volumes = {volume["name"] for volume in pod.get("volumes", [])} | {"data"}
            for container in containers(pod):
                mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
                assert set(mounts.values()) <= volumes
                if "postgres" not in container["image"]:
                    assert {"/tmp", "/home/bfr"} <= mounts.keys(), container["name"]


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_the_cluster_scales_from_nothing_and_asks_for_a_token(kind: str) -> None:
    for found in by_kind(kind):
        spec = ray_spec(found)
        assert spec["rayVersion"] == locked()["ray"]
        assert spec["authOptions"] == {"mode": "token", "secretName": "ray-token"}
        assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
        workers = next(group for group in spec["workerGroupSpecs"] if "workers" in group["groupName"])
        assert (workers["minReplicas"], workers["replicas"]) == (0, 0) and workers["maxReplicas"] >= 4
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            ray = pod["containers"][0]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= ray.keys()
            memory = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shared-mem")
            assert memory["medium"] == "Memory"
            assert group is spec["headGroupSpec"] or pod["restartPolicy"] == "Never"


def test_gpu_workers_tolerate_spot_nodes() -> None:
    cluster = next(found for found in overlay("gpu") if found["kind"] == "RayCluster")
    group = ray_spec(cluster)["workerGroupSpecs"][1]
    pod = group["template"]["spec"]
    assert group["groupName"] == "gpu-workers"
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {container["image"].rsplit("-")[-1] for container in containers(pod)} == {"cuda"}
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= {each["key"] for each in pod["tolerations"]}


def test_the_job_has_the_cluster_of_the_overlay_gpu() -> None:
    job = next(found for found in overlay("job") if found["kind"] == "RayJob")
    cluster = next(found for found in overlay("gpu") if found["kind"] == "RayCluster")
    expected = dict(cluster["spec"], workerGroupSpecs=cluster["spec"]["workerGroupSpecs"][1:])
    assert job["spec"]["rayClusterSpec"] == expected
    assert "RayCluster" not in {found["kind"] for found in overlay("job")}
    assert f"--min-actors {expected['workerGroupSpecs'][0]['maxReplicas']} " in job["spec"]["entrypoint"]


def test_budgets_name_pods_that_exist() -> None:
    """With a number: a RayCluster has no `scale`, without which Kubernetes refuses percentages and `maxUnavailable`."""
    groups = {group["groupName"] for group in ray_spec(by_kind("RayCluster")[0])["workerGroupSpecs"]}
    for budget in by_kind("PodDisruptionBudget"):
        labels = budget["spec"]["selector"]["matchLabels"]
        assert budget["spec"]["minAvailable"] == 1
        assert labels.get("ray.io/node-type") == "head" or labels["ray.io/group"] in groups


def test_nothing_is_allowed_that_no_policy_names() -> None:
    policies = {found["metadata"]["name"]: found["spec"] for found in base() if found["kind"] == "NetworkPolicy"}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    outside = [
        peer["ipBlock"] for spec in policies.values() for rule in spec.get("egress", []) for peer in rule.get("to", [])
        if "ipBlock" in peer
    ]  # fmt: skip
    assert {"169.254.169.254/32"} <= {cidr for block in outside for cidr in block.get("except", [])}
    assert all(block.get("except") for block in outside if block["cidr"] == "0.0.0.0/0")
    assert all(peer for spec in policies.values() for rule in spec.get("ingress", []) for peer in rule["from"])


def test_no_secret_is_in_a_file() -> None:
    assert not by_kind("Secret")
    for found in objects():
        for pod in pod_specs(found):
            for variable in (each for container in containers(pod) for each in container.get("env", [])):
                is_secret = re.search("TOKEN|PASSWORD|SECRET|KEY|AUTH_STRING", variable["name"])
                assert not is_secret or "secretKeyRef" in variable["valueFrom"], variable["name"]
    settings = (KUBERNETES / "base/cluster.env").read_text()
    assert not re.search("(?m)^[A-Z_]*(TOKEN|PASSWORD|SECRET|ACCESS_KEY)", settings)
