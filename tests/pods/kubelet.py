"""Runs the pods of rendered manifests with podman, and probes them as a kubelet does."""

import copy
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.containers.containers import Container, Containers, answers
from tests.containers.engine import LABEL, EngineError, podman
from tests.support.daemons import eventually

Manifest = dict[str, Any]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@dataclass(frozen=True)
class Pod:
    """A started pod: its only container, its address, and the container's manifest."""

    name: str
    container: Container
    address: str
    spec: Manifest

    def url(self, port: str) -> str:
        """The URL of a named port."""
        (number,) = (each["containerPort"] for each in self.spec["containers"][0]["ports"] if each["name"] == port)
        return f"http://{self.address}:{number}"

    def probe(self, name: str) -> bool:
        """Whether a probe succeeds now."""
        get = self.spec["containers"][0][name]["httpGet"]
        return answers(self.url(get["port"]) + get["path"])

    def await_start(self) -> None:
        """Probe as often as the manifest allows, until it has started and is ready; AssertionError if it is not."""
        startup = self.spec["containers"][0]["startupProbe"]
        for _ in range(startup["failureThreshold"]):
            if self.probe("startupProbe"):
                break
            assert self.container.running(), self.container.logs()
            time.sleep(startup["periodSeconds"])
        assert self.probe("livenessProbe"), self.container.logs()
        eventually(lambda: self.probe("readinessProbe"), what=f"{self.name} is ready")

    def stop(self) -> int:
        """End it as a deletion does; returns the exit status of its container."""
        return self.container.stop(self.spec["terminationGracePeriodSeconds"])


@dataclass(frozen=True)
class Kubelet:
    """Runs pods in a network, each labelled with the test run that owns it."""

    containers: Containers
    network: str
    folder: Path

    def run_jobs(self, manifests: list[Manifest]) -> dict[str, str]:
        """Run the jobs in the order of their weights, each to its end; returns what each has printed."""
        jobs = [each for each in manifests if each["kind"] == "Job"]
        jobs.sort(key=lambda job: int(job["metadata"]["annotations"]["helm.sh/hook-weight"]))
        printed = {}
        for job in jobs:
            template = job["spec"]["template"]
            name = template["metadata"]["labels"]["app.kubernetes.io/component"]
            printed[name] = self.run_to_end(name, template, manifests, job["spec"]["activeDeadlineSeconds"])
        return printed

    def run_to_end(self, name: str, template: Manifest, manifests: list[Manifest], seconds: float) -> str:
        """Run a pod that ends; returns what it has printed, AssertionError if it fails."""
        # A hook runs before the other objects of the release exist.
        secrets = [each for each in manifests if each["kind"] == "Secret"]
        with self.play(name, template, secrets) as pod:
            eventually(lambda: not pod.container.running(), seconds=seconds, what=f"{name} ends")
            printed = pod.container.logs()
            assert pod.container.inspect("{{.State.ExitCode}}") == "0", printed
            return printed

    @contextmanager
    def play(self, name: str, template: Manifest, objects: list[Manifest]) -> Iterator[Pod]:
        """Run a pod while the block runs; `objects` are the ConfigMaps and Secrets that there are."""
        name = self.containers.new_name(name)
        pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
        pod["metadata"].update(name=name)
        pod["metadata"]["labels"][LABEL] = self.containers.owner
        pod["metadata"].pop("annotations", None)  # podman takes 63 characters for the most that one may have
        # podman would run probes inside, with a program that the image does not have, and publish the ports.
        for each in (*PROBES, "ports"):
            pod["spec"]["containers"][0].pop(each, None)
        configuration = self.folder / f"{name}-configuration.yaml"
        configuration.write_text(yaml.safe_dump_all([each for each in objects if each["kind"] == "ConfigMap"]))
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(pod))
        known = ("--configmap", str(configuration)) if configuration.stat().st_size else ()
        podman("kube", "play", "--network", self.network, "--log-driver", "k8s-file", *known, file)
        try:
            container = Container(f"{name}-{template['spec']['containers'][0]['name']}")
            yield Pod(name, container, _address(name), template["spec"])
        finally:
            podman("pod", "rm", "--force", "--time", "0", name)


def create_secrets(manifests: list[Manifest]) -> None:
    """Create the Secrets, which podman keeps apart from pods; those that a killed run has left are replaced."""
    remove_secrets(manifests)
    for each in manifests:
        if each["kind"] == "Secret":
            podman("secret", "create", each["metadata"]["name"], "-", stdin=json.dumps(each["data"]))


def remove_secrets(manifests: list[Manifest]) -> None:
    """Remove the Secrets that there are."""
    for each in manifests:
        if each["kind"] == "Secret":
            with suppress(EngineError):
                podman("secret", "rm", each["metadata"]["name"])


def _address(pod: str) -> str:
    infra = json.loads(podman("pod", "inspect", pod))["InfraContainerID"]
    networks: Mapping[str, Any] = json.loads(podman("inspect", infra))[0]["NetworkSettings"]["Networks"]
    addresses = [each["IPAddress"] for each in networks.values()]
    if len(addresses) != 1:
        raise EngineError(f"{pod} has the addresses {addresses}")
    return str(addresses[0])
