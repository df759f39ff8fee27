"""What docker-compose.yml and the Dockerfile promise, beyond what their linters can know."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = ("line-ood", "line-ood-gpu")

Instruction = tuple[str, str]


def _stages() -> dict[str, tuple[str, list[Instruction]]]:
    """Each stage of the Dockerfile: what it stands on, and its instructions."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    stages: dict[str, tuple[str, list[Instruction]]] = {}
    name = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, name = rest.split(" AS ")
            stages[name] = (base, [])
        elif word:
            stages[name][1].append((word, rest))
    return stages


def _instructions(target: str) -> list[Instruction]:
    """The instructions that make a target's final image, those of the stages it stands on first."""
    stages = _stages()
    if target not in stages:
        return []
    base, own = stages[target]
    return [*_instructions(base), *own]


def _last(target: str, word: str) -> str:
    return [rest for instruction, rest in _instructions(target) if instruction == word][-1]


def _variables(target: str) -> dict[str, str]:
    text = " ".join(rest for word, rest in _instructions(target) if word == "ENV")
    return dict(pair.split("=", 1) for pair in text.split())


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_image_runs_as_numeric_user(target: str) -> None:
    """Both targets run as a number that is not root, so that an orchestrator can verify it."""
    user = _last(target, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_image_checks_its_readiness(target: str) -> None:
    """Both targets tell their health by /readyz, at the port that they listen on."""
    check = _last(target, "HEALTHCHECK")
    assert "/readyz" in check
    assert "LINE_OOD_PORT" in check
    assert _variables(target)["LINE_OOD_PORT"] == _last(target, "EXPOSE")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_image_serves_by_default(target: str) -> None:
    """Both targets start the server without a shell in between, which would keep SIGTERM to itself."""
    assert json.loads(_last(target, "ENTRYPOINT")) == ["line-ood"]
    assert json.loads(_last(target, "CMD")) == ["serve"]


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_image_keeps_models_in_volume(target: str) -> None:
    """Downloaded weights go to a volume: they outlive the container, and the root may be read-only."""
    (volume,) = json.loads(_last(target, "VOLUME"))
    caches = [_variables(target)[name] for name in ("TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME")]
    assert all(Path(cache).is_relative_to(volume) for cache in caches)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_image_sets_only_settings_that_exist(target: str) -> None:
    """Every LINE_OOD_* variable of the image is a setting of the server."""
    names = {name for name in _variables(target) if name.startswith("LINE_OOD_")}
    assert names <= {f"LINE_OOD_{setting.upper()}" for setting in Settings.model_fields}


def test_final_images_stand_on_one_base() -> None:
    """Builder and final image share their base: the environment that is copied finds the same Python."""
    stages = _stages()
    assert stages["build"][0] == stages["runtime"][0]
    assert {stages[target][0] for target in ("cpu", "cuda")} == {"runtime"}


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_confined(name: str) -> None:
    """Every container has a read-only root, no capabilities and no way to gain any."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_local(name: str) -> None:
    """What is published is reached from this machine only: none of it asks for a password."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVERS)
def test_servers_write_to_volumes_only(name: str) -> None:
    """A server has /tmp in memory and the model cache in a volume, and the artifacts only to read."""
    assert SERVICES[name]["tmpfs"] == ["/tmp"]
    assert "model-cache:/cache" in SERVICES[name]["volumes"]
    (artifacts,) = [volume for volume in SERVICES[name]["volumes"] if ":/artifacts" in volume]
    assert artifacts.endswith(":ro")


@pytest.mark.parametrize(("name", "target"), [("line-ood", "cpu"), ("line-ood-gpu", "cuda")])
def test_servers_check_health_as_their_image(name: str, target: str) -> None:
    """A server's health check is the one of its image, and it is built from the right target."""
    in_image = json.loads(_last(target, "HEALTHCHECK").partition("CMD ")[2])
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", *in_image]
    assert SERVICES[name]["build"]["target"] == target


def test_start_order_follows_health() -> None:
    """Prometheus waits for the server's health, Grafana for that of Prometheus."""
    healthy = {"condition": "service_healthy"}
    assert SERVICES["prometheus"]["depends_on"] == {"line-ood": healthy}
    assert SERVICES["grafana"]["depends_on"] == {"prometheus": healthy}
    assert all("test" in SERVICES[name]["healthcheck"] for name in ("line-ood", "prometheus", "grafana"))


def test_profiles() -> None:
    """Without a profile come the demo and its monitoring; the GPU, calibration and sending alerts are asked for."""
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert profiles == {
        "line-ood": [],
        "line-ood-gpu": ["gpu"],
        "calibrate": ["calibrate"],
        "prometheus": [],
        "alertmanager": ["alerts"],
        "grafana": [],
    }
    (device,) = SERVICES["line-ood-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_demo_artifact_is_the_default() -> None:
    """Unless the shell names an artifact, the server is not told of any and serves the embedded one."""
    assert SERVICES["line-ood"]["environment"] == {"LINE_OOD_ARTIFACT": None}


def test_calibration_reads_data_and_writes_where_servers_read() -> None:
    """The one-shot calibration may only read the data, and its artifact is where a server can be pointed to."""
    service = SERVICES["calibrate"]
    assert service["restart"] == "no"
    (data,) = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    assert data["read_only"] is True
    assert f"--data={data['target']}" in service["command"]
    (out,) = [argument.removeprefix("--out=") for argument in service["command"] if argument.startswith("--out=")]
    shared = [volume for volume in service["volumes"] if isinstance(volume, str) and volume.startswith("${ARTIFACTS")]
    assert shared[0] + ":ro" in SERVICES["line-ood"]["volumes"]
    assert shared[0].endswith(f":{Path(out).parent}")


def test_mounted_files_exist() -> None:
    """Every folder of the repository that a container mounts is there, and every named volume is declared."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else ""
            if source.startswith("./"):
                assert (ROOT / source).is_dir(), source
            elif source and not source.startswith("$"):
                assert source in COMPOSE["volumes"]
    assert (ROOT / "deploy/prometheus/prometheus.yml").is_file()


def test_prometheus_scrapes_the_servers() -> None:
    """Prometheus' target are the servers, by their names in the compose file and the port they listen on."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    (targets,) = job["dns_sd_configs"]
    assert targets["names"] == list(SERVERS)
    assert str(targets["port"]) == _last("cpu", "EXPOSE")
    assert "metrics_path" not in job  # /metrics is what both sides take by default


def test_prometheus_sends_alerts_to_the_alertmanager() -> None:
    """Prometheus' Alertmanager is the one of the compose file, and both find their files where they are mounted."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (manager,) = config["alerting"]["alertmanagers"]
    (found,) = manager["dns_sd_configs"]
    service = SERVICES["alertmanager"]
    assert found["names"] == ["alertmanager"]
    assert service["ports"] == [f"127.0.0.1:{found['port']}:{found['port']}"]
    (file,) = [flag.partition("=")[2] for flag in service["command"] if flag.startswith("--config.file=")]
    mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
    assert Path(file).parent == Path(mounts["./deploy/alertmanager"])
    assert (ROOT / "deploy/alertmanager" / Path(file).name).is_file()
    assert config["rule_files"] == ["rules/*.yml"]
    assert "./deploy/prometheus:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]


def test_everything_that_the_image_copies_is_sent() -> None:
    """.dockerignore lets through what the Dockerfile copies, and nothing that does not exist."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {source for word, rest in _stages()["build"][1] if word == "COPY" for source in rest.split()[:-1]}
    assert "*" in ignored
    assert sent == copied
    assert all((ROOT / path).exists() for path in sent)
