"""The Kubernetes example: valid by Kubernetes' own schema, confined, and of one mind with image and server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.guard import HEALTH
from service.server import RESERVE_S
from service.settings import Settings

ROOT = Path(__file__).parents[2]
OBJECTS: dict[str, dict[str, Any]] = {
    each["kind"]: each for each in yaml.safe_load_all((ROOT / "deploy/kubernetes/line-ood.yml").read_text())
}
POD = OBJECTS["Deployment"]["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]


@pytest.mark.parametrize("kind", OBJECTS)
def test_it_is_valid(kind: str) -> None:
    """Every object is what Kubernetes 1.34 accepts, with no field that it does not know."""
    kubernetes_validate.validate(OBJECTS[kind], "1.34", strict=True)


def test_a_field_that_does_not_exist_would_be_seen() -> None:
    """The check above can fail."""
    wrong = {**OBJECTS["Service"], "spec": {"selectors": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


def test_it_is_confined() -> None:
    """No root, nothing to write to but two empty folders, no capabilities, no way to gain any, no account."""
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    context = POD["spec"]["securityContext"]
    assert context["runAsNonRoot"] is True
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in (ROOT / "Dockerfile").read_text()
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["spec"]["automountServiceAccountToken"] is False
    writable = {mount["name"] for mount in CONTAINER["volumeMounts"] if not mount.get("readOnly")}
    assert {volume["name"] for volume in POD["spec"]["volumes"] if "emptyDir" in volume} == writable == {"tmp", "cache"}


def test_probes_need_no_key() -> None:
    """What the kubelet asks is answered without a key, at the container's port, by name."""
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert CONTAINER[name]["httpGet"]["path"] in HEALTH
        assert CONTAINER[name]["httpGet"]["port"] == CONTAINER["ports"][0]["name"]
    assert OBJECTS["Service"]["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]


def test_the_pod_has_time_to_drain() -> None:
    """Kubernetes kills later than the server has ended."""
    pause = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["spec"]["terminationGracePeriodSeconds"] >= pause + Settings().drain_s + RESERVE_S


def test_its_settings_and_labels_fit() -> None:
    """Every variable is a setting, every file of keys lies in a mount; service and policy select the pod."""
    mounts = [mount["mountPath"] for mount in CONTAINER["volumeMounts"]]
    for variable in CONTAINER["env"]:
        assert variable["name"].removeprefix("LINE_OOD_").lower() in Settings.model_fields
        assert str(Path(variable["value"]).parent) in mounts
    labels = POD["metadata"]["labels"]
    assert OBJECTS["Service"]["spec"]["selector"] == labels
    assert OBJECTS["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert OBJECTS["Deployment"]["spec"]["selector"]["matchLabels"] == labels
