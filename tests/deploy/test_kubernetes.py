"""The manifests: valid by Kubernetes' own schemas, and naming only what the code has."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from itertools import chain
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from gaussline.worker.broker.acl import acl_users
from gaussline.worker.commands.exporter import PORT
from gaussline.worker.settings import PREFIX, Settings
from tests.deploy.test_files import DEPLOY, KNOWN, check_command
from tests.monitoring.test_rules import NAME, exposed, rules
from tests.support.tools import tool

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in KUBERNETES.parents[1].glob("tests/deploy/schemas/*")
}
OLDEST, NEWEST = "1.28", "1.34"
"""Versions of Kubernetes that the manifests are held to."""


@cache
def render(overlay: str) -> tuple[dict[str, Any], ...]:
    """All objects of an overlay, as `kubectl apply -k` would send them."""
    words = [tool("kubectl"), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing deprecated"
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, *kinds: str) -> list[dict[str, Any]]:
    return [each for each in render(overlay) if each["kind"] in kinds]


def pods(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in of_kind(overlay, "Deployment", "StatefulSet"):
        yield each["metadata"]["name"], each["spec"]["template"]


def ours(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pods of ours, the operator's too, by their names or those of their Deployments."""
    alone = ((each["metadata"]["name"], each) for each in of_kind(overlay, "Pod"))
    for name, pod in chain(pods(overlay), alone):
        if "gaussline-" in pod["spec"]["containers"][0]["image"]:
            yield name, pod


def containers(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Our own containers, by the name of their Deployment."""
    for name, pod in pods(overlay):
        for container in pod["spec"]["containers"]:
            if "gaussline-" in container["image"]:
                yield name, container


def settings_of(overlay: str) -> dict[str, str]:
    (found,) = of_kind(overlay, "ConfigMap")
    return dict(found["data"])


def invalid(thing: dict[str, Any]) -> str:
    """What is wrong with an object, by the schema of its kind."""
    try:
        if thing["kind"] in SCHEMAS:
            jsonschema.validate(thing, SCHEMAS[thing["kind"]])
        else:
            for number in (OLDEST, NEWEST):
                kubernetes_validate.validate(thing, number, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str) -> None:
    objects = render(overlay)
    assert len(objects) >= 10
    assert {f"{each['kind']} {each['metadata']['name']}": told for each in objects if (told := invalid(each))} == {}


def test_the_schemas_see_what_is_wrong() -> None:
    (worker,) = [each for each in of_kind("plant", "Deployment") if each["metadata"]["name"] == "gaussline-worker"]
    for spoil in ({"replicass": 2}, {"replicas": "two"}, {"template": 3}):
        assert invalid(worker | {"spec": worker["spec"] | spoil}), spoil
    for kind in SCHEMAS:
        (thing,) = of_kind("plant", kind)
        assert invalid(thing | {"spec": thing["spec"] | {"unheardOf": 1}})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_containers_run_commands_images_and_settings_that_there_are(overlay: str) -> None:
    built = {path.name.split(".")[0] for path in (DEPLOY / "docker").glob("*.Dockerfile")}
    data = settings_of(overlay)
    assert set(data) <= KNOWN
    # Every value is one that the settings take; the file of the password is mounted, and not here.
    Settings.load({key: value for key, value in data.items() if key != PREFIX + "REDIS_PASSWORD_FILE"})
    names = set()
    for name, container in containers(overlay):
        names.add(name)
        image, _, tag = container["image"].rpartition(":")
        assert image.split("/")[-1].removeprefix("gaussline-") in built
        assert tag == version("gaussline")
        check_command(container["args"])
        assert {each["name"] for each in container.get("env", [])} <= KNOWN
        assert container["envFrom"][0]["configMapRef"]["name"] == of_kind(overlay, "ConfigMap")[0]["metadata"]["name"]
    assert {"gaussline-worker", "gaussline-exporter", "gaussline-judge", "gaussline-learner"} <= names
    assert data[PREFIX + "REDIS_PASSWORD_FILE"].startswith(
        next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "redis")
    )
    assert data[PREFIX + "WEIGHTS"].startswith("/var/lib/gaussline/weights/")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_those_that_are_served_and_probes_ask_what_answers(overlay: str) -> None:
    served = {"gaussline-worker": Settings.model_fields["http_port"].default, "gaussline-exporter": PORT}
    ports = []
    for name, container in containers(overlay):
        (port,) = container["ports"]
        args = container["args"]
        told = int(args[args.index("--http-port") + 1]) if "--http-port" in args else served[name]
        assert port == {"name": "metrics", "containerPort": told}
        ports.append(told)
        for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
            assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    assert len(set(ports)) == len(ports)
    (policy,) = [each for each in of_kind(overlay, "NetworkPolicy") if each["metadata"]["name"] == "gaussline"]
    allowed = {port["port"] for port in policy["spec"]["ingress"][0]["ports"]}
    assert {
        port for name, port in zip((n for n, _ in containers(overlay)), ports, strict=True) if "camera" not in name
    } == allowed


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_give_little_away(overlay: str) -> None:
    for name, pod in chain(pods(overlay), ours(overlay)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert re.search(r":v?\d+\.\d+\.\d+", container["image"]), "pinned"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_named_and_never_told(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == []
    assert "@" not in settings_of(overlay)[PREFIX + "REDIS_URL"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_process_is_a_user_of_its_own_and_sees_no_other_password(overlay: str) -> None:
    users, found = acl_users(settings_of(overlay)[PREFIX + "LINE"]), []
    for name, pod in ours(overlay):
        (container,) = pod["spec"]["containers"]
        told = {each["name"]: each["value"] for each in container["env"]}
        user = told[PREFIX + "REDIS_USER"]
        assert user in users
        assert user == ("producer" if "camera" in name else name.removeprefix("gaussline-"))
        (secret,) = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert secret["secretName"] == "gaussline-redis"
        assert secret["items"] == [{"key": user, "path": "password"}]
        found.append(user)
    assert len(found) == len(set(found)) >= 4


def test_redis_knows_the_users_and_no_password() -> None:
    (server,) = of_kind("first-look", "StatefulSet")
    spec = server["spec"]["template"]["spec"]
    (secret,) = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert (secret["secretName"], secret["items"]) == (
        "gaussline-redis-users",
        [{"key": "users.acl", "path": "users.acl"}],
    )
    (container,) = spec["containers"]
    words = container["args"]
    (mount,) = [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "users"]
    assert words[words.index("--aclfile") + 1] == f"{mount}/users.acl"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_stopping_takes_longer_than_draining(overlay: str) -> None:
    drain_s = Settings.load({k: v for k, v in settings_of(overlay).items() if k == PREFIX + "DRAIN_S"}).drain_s
    spec = dict(pods(overlay))["gaussline-worker"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > drain_s


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_are_spread_and_one_always_stays(overlay: str) -> None:
    (worker,) = [each for each in of_kind(overlay, "Deployment") if each["metadata"]["name"] == "gaussline-worker"]
    labels = worker["spec"]["template"]["metadata"]["labels"].items()
    (budget,) = of_kind(overlay, "PodDisruptionBudget")
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels
    assert budget["spec"]["minAvailable"] < worker["spec"].get("replicas", 2)
    (spread,) = worker["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"]["matchLabels"].items() <= labels
    rolling = worker["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] < 2


def test_every_pod_of_ours_is_under_the_network_policy_and_may_reach_redis() -> None:
    (our, redis) = of_kind("first-look", "NetworkPolicy")
    assert our["spec"]["policyTypes"] == ["Ingress", "Egress"]
    for name, pod in pods("first-look"):
        labels = pod["metadata"]["labels"]
        own = redis if name == "gaussline-redis" else our
        if "camera" not in name:
            assert own["spec"]["podSelector"]["matchLabels"].items() <= labels.items(), name
        if name != "gaussline-redis":
            assert redis["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()


def test_redis_keeps_frames_and_evicts_none() -> None:
    (server,) = of_kind("first-look", "StatefulSet")
    told = " ".join(server["spec"]["template"]["spec"]["containers"][0]["args"])
    for words in ("redis-server ", "--appendonly yes", "--maxmemory-policy noeviction"):
        assert words in told
    (service,) = of_kind("first-look", "Service")
    assert f"//{service['metadata']['name']}:6379/" in settings_of("first-look")[PREFIX + "REDIS_URL"]


def test_the_operator_scrapes_the_pods_and_has_the_rules() -> None:
    (monitor,) = of_kind("plant", "ServiceMonitor")
    (service,) = of_kind("plant", "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    (port,) = service["spec"]["ports"]
    assert (endpoint["port"], endpoint["path"], port["targetPort"]) == (port["name"], "/metrics", "metrics")
    for _, pod in pods("plant"):
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (made,) = of_kind("plant", "PrometheusRule")
    told = list(chain.from_iterable(group["rules"] for group in made["spec"]["groups"]))
    assert told == [*rules("record"), *rules("alert")], "run: make docs"


def test_the_autoscaler_asks_for_our_seconds_of_backlog() -> None:
    (scaled,) = of_kind("plant", "ScaledObject")
    line = settings_of("plant")[PREFIX + "LINE"]
    names = {each["metadata"]["name"] for each in of_kind("plant", "Deployment")}
    assert scaled["spec"]["scaleTargetRef"]["name"] in names
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    assert "gaussline_line_backlog_age_seconds" in queries[0]
    for query in queries:
        assert set(NAME.findall(query)) <= exposed(), query
        assert f'line="{line}"' in query
    (alert,) = [rule for rule in rules("alert") if rule["alert"] == "GausslineBacklogAge"]
    threshold_s = float(scaled["spec"]["triggers"][0]["metadata"]["threshold"])
    assert threshold_s < float(alert["expr"].rsplit(">", 1)[1]), "it scales before somebody is woken"
    (worker,) = [each for each in of_kind("plant", "Deployment") if each["metadata"]["name"] == "gaussline-worker"]
    assert "replicas" not in worker["spec"], "applying again must not undo the autoscaler"


def test_a_gpu_worker_asks_for_its_gpu() -> None:
    (worker,) = [container for name, container in containers("plant") if name == "gaussline-worker"]
    assert worker["resources"]["requests"]["nvidia.com/gpu"] == worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": PREFIX + "DEVICE", "value": "cuda:0"} in worker["env"]
