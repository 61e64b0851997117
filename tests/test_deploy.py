"""The Kubernetes manifests are valid, hardened, and match Dockerfile, compose file, settings and routes."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import typer
import yaml

from app.cli import app as commands
from app.main import create_app
from app.settings import PREFIX, Settings
from app.store.run_store import RunStore
from app.training.trainer import train_run
from tests.support.runs import gru_like, small_text

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
COMPONENTS = sorted(path.name for path in (FOLDER / "components").iterdir())
OLDEST, NEWEST = "1.25", "1.37"
FOREIGN = "monitoring.coreos.com/"  # kinds that are not part of Kubernetes
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")

Resource = dict[str, Any]


def listed(folder: Path, *components: str) -> list[Resource]:
    """The resources listed by a kustomization and by some components, without patches."""
    found: list[Resource] = []
    for place in (folder, *(folder / "components" / name for name in components)):
        for name in yaml.safe_load((place / "kustomization.yaml").read_text("utf-8"))["resources"]:
            found += yaml.safe_load_all((place / name).read_text("utf-8"))
    return found


def rendered(folder: Path) -> list[Resource] | None:
    """The output of kustomize for a directory; None if kustomize is not installed."""
    for program in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(program[0]):
            done = subprocess.run([*program, str(folder)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return list(yaml.safe_load_all(done.stdout))
    return None


def with_components(target: Path, *components: str) -> Path:
    """A copy of the manifests with components added, as by removing a `#`."""
    shutil.copytree(FOLDER, target)
    text = (target / "kustomization.yaml").read_text("utf-8")
    named = [f"components/{name}" for name in components]
    (target / "kustomization.yaml").write_text(text + f"components: {json.dumps(named)}\n", "utf-8")
    return target


def only(kind: str, name: str, resources: list[Resource] | None = None) -> Resource:
    resources = listed(FOLDER, *COMPONENTS) if resources is None else resources
    (found,) = (one for one in resources if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def pods(resources: list[Resource]) -> dict[str, Resource]:
    found = {}
    for one in resources:
        if one["kind"] in ("Deployment", "Job"):
            found[one["metadata"]["name"]] = one["spec"]["template"]["spec"]
    return found


def container(pod: Resource) -> Resource:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


def service_of(name: str) -> Resource:
    """The service of the compose file that corresponds to the workload `name`."""
    found = COMPOSE["services"]["server" if "server" in name else "worker"]
    assert isinstance(found, dict)
    return found


PODS = pods(listed(FOLDER, *COMPONENTS))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_are_valid_for_every_supported_version(version: str):
    resources = listed(FOLDER, *COMPONENTS)
    kinds = {one["kind"] for one in resources}
    assert {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"} <= kinds
    assert {"PersistentVolumeClaim", "NetworkPolicy", "Ingress", "ServiceMonitor", "PrometheusRule"} <= kinds
    for one in resources:
        if not one["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(one, version, strict=True)
    broken = only("Deployment", "charloom-server", resources)
    broken["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, version, strict=True)


@pytest.mark.parametrize("components", [[], *([name] for name in COMPONENTS), COMPONENTS])
def test_kustomize_renders_the_listed_resources(components: list[str], tmp_path: Path):
    made = rendered(with_components(tmp_path / "copy", *components))
    if made is None:
        pytest.skip("neither kustomize nor kubectl is installed")
    gone = {("Deployment", "charloom-worker")} if "worker-job" in components else set()
    expected = {(one["kind"], one["metadata"]["name"]) for one in listed(FOLDER, *components)} - gone
    assert {(one["kind"], one["metadata"]["name"]) for one in made} == expected
    for one in made:
        if not one["apiVersion"].startswith(FOREIGN):
            kubernetes_validate.validate(one, NEWEST, strict=True)
    for pod in pods(made).values():
        assert container(pod)["image"] == "charloom:latest"
    if "ingress" in components:
        variables = {one["name"]: one for one in container(pods(made)["charloom-server"])["env"]}
        (rule,) = only("Ingress", "charloom", made)["spec"]["rules"]
        assert variables["CHARLOOM_ROOT_PATH"]["value"] == rule["http"]["paths"][0]["path"]
        assert rule["host"] in variables["CHARLOOM_ALLOWED_HOSTS"]["value"].split(",")
        assert {"TMPDIR", "CHARLOOM_API_KEYS"} < set(variables)


def test_no_manifest_names_a_namespace():
    for path in FOLDER.rglob("*.yaml"):
        for one in yaml.safe_load_all(path.read_text("utf-8")):
            assert "namespace" not in json.dumps(one), path.name


@pytest.mark.parametrize("name", PODS)
def test_pods_are_as_hardened_as_the_compose_file(name: str):
    pod, one, compose = PODS[name], container(PODS[name]), service_of(name)
    assert (compose["read_only"], compose["cap_drop"]) == (True, ["ALL"])
    assert compose["security_opt"] == ["no-new-privileges:true"]
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user, group = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[0]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user),
        "runAsGroup": int(group),
        "fsGroup": int(group),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert {one["tolerationSeconds"] for one in pod["tolerations"]} == {30}
    assert {one["key"].rpartition("/")[2] for one in pod["tolerations"]} == {"not-ready", "unreachable"}


@pytest.mark.parametrize("name", PODS)
def test_pods_run_what_the_compose_file_runs(name: str):
    pod, one, compose = PODS[name], container(PODS[name]), service_of(name)
    extra = ["--until-idle"] if name == "charloom-worker-job" else []
    assert one["args"] == [*compose["command"], *extra]
    command = typer.main.get_command(commands).commands[one["args"][0]]  # type: ignore[attr-defined]
    command.make_context("charloom", one["args"][1:])  # raises for an unknown option
    assert one["image"] == compose["image"]
    assert one["resources"]["limits"]["memory"] == compose["mem_limit"].replace("g", "Gi")
    grace = int(compose["stop_grace_period"].removesuffix("s"))
    waits = one.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1]
    assert pod["terminationGracePeriodSeconds"] == grace + int(waits)
    (volume,) = compose["volumes"]
    places = {place["name"]: place["mountPath"] for place in one["volumeMounts"]}
    (declared,) = re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
    assert places == {"checkpoints": declared, "tmp": "/tmp"}
    assert volume == f"checkpoints:{declared}"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert compose["tmpfs"] == ["/tmp:size=64m,mode=1777"]
    assert volumes["tmp"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    claim = only("PersistentVolumeClaim", "charloom")
    assert volumes["checkpoints"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def variables_of() -> Iterator[tuple[str, Any]]:
    for path in FOLDER.rglob("*.yaml"):
        for name, value in re.findall(r"- name: ([A-Z_]+)\n\s+value: (.*)", path.read_text("utf-8")):
            yield name, yaml.safe_load(value)


def test_variables_of_manifests_are_valid_settings():
    variables = dict(variables_of())
    compose = service_of("server")["environment"]
    for name in [name for name in compose if name.startswith(PREFIX)]:  # a pod uses the defaults of these
        assert name.removeprefix(PREFIX).lower() in Settings.model_fields
        compose = {other: value for other, value in compose.items() if other != name}
    assert {name: value for name, value in variables.items() if not name.startswith(PREFIX)} == compose
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }
    assert set(given) == {"root_path", "allowed_hosts"}
    Settings(**given)  # refuses names and values that are not settings
    keys = [one for one in container(PODS["charloom-server"])["env"] if "valueFrom" in one]
    assert [one["name"] for one in keys] == ["CHARLOOM_API_KEYS"]
    assert "api_keys" in Settings.model_fields
    secret = keys[0]["valueFrom"]["secretKeyRef"]
    monitor = only("ServiceMonitor", "charloom")["spec"]["endpoints"][0]["authorization"]["credentials"]
    assert (secret["name"], monitor["name"]) == ("charloom-keys", "charloom-keys")
    guide = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    for key in (secret["key"], monitor["key"]):
        assert f"--from-literal={key}=" in guide


def test_ports_and_probes_match_the_image():
    server, worker = container(PODS["charloom-server"]), container(PODS["charloom-worker"])
    (exposed,) = map(int, re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE))
    assert server["ports"] == [{"name": "http", "containerPort": exposed}]
    assert Settings.model_fields["port"].default == exposed
    assert only("Service", "charloom")["spec"]["ports"][0]["targetPort"] == "http"
    assert only("NetworkPolicy", "charloom-server")["spec"]["ingress"][0]["ports"][0]["port"] == "http"
    assert "ingress" not in only("NetworkPolicy", "charloom-worker")["spec"]
    routes = set(create_app(Settings()).openapi()["paths"])
    probes = [server[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert {probe["port"] for probe in probes} == {"http"}
    assert [probe["path"] for probe in probes] == ["/healthz", "/healthz", "/readyz"]
    monitored = only("ServiceMonitor", "charloom")["spec"]["endpoints"][0]["path"]
    assert {"/healthz", "/readyz", monitored} <= routes
    assert f":{exposed}/healthz" in DOCKERFILE
    check = COMPOSE["services"]["worker"]["healthcheck"]
    for kind in ("startup", "liveness"):
        assert ["CMD", *worker[f"{kind}Probe"]["exec"]["command"]] == check["test"]
    assert f"{worker['livenessProbe']['periodSeconds']}s" == check["interval"]
    assert worker["livenessProbe"]["failureThreshold"] == check["retries"]


@pytest.mark.parametrize("kind", ["Service", "PodDisruptionBudget", "NetworkPolicy"])
def test_selectors_match_the_intended_pods(kind: str):
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in listed(FOLDER, *COMPONENTS)
        if one["kind"] in ("Deployment", "Job")
    }
    for one in listed(FOLDER):
        if one["kind"] == kind:
            spec = one["spec"].get("podSelector") or one["spec"]["selector"]
            wanted = spec.get("matchLabels", spec)
            found = {name for name, given in labels.items() if wanted.items() <= given.items()}
            component = one["metadata"]["labels"]["app.kubernetes.io/component"]
            assert found == {name for name in labels if component in name}


@pytest.mark.slow
def test_alerts_use_existing_metrics(tmp_path: Path, serving: Callable[..., httpx.Client]):
    store = RunStore(tmp_path / "checkpoints")
    train_run(store.create("gru", gru_like(steps=1), small_text(), "a.txt"), lambda: False)
    metrics = serving(store.root).get("/metrics").text
    (group,) = only("PrometheusRule", "charloom")["spec"]["groups"]
    names = {name for rule in group["rules"] for name in re.findall(r"charloom_\w+", rule["expr"])}
    assert len(names) >= 5
    for name in names:
        assert re.search(rf"^{name}[ {{]", metrics, re.MULTILINE), name
    for reason in ("overloaded", "unauthorized"):
        assert f'charloom_requests_rejected_total{{reason="{reason}"}}' in metrics
