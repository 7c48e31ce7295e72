"""The chart renders in every scenario to what Kubernetes and the operators take, and refuses what it does not know."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.main import _COMMANDS
from config.settings import CONSUMER_NEEDS, NOTIFY_NEEDS, Settings, load
from tests.chart.schemas import write_custom, write_kubernetes
from tests.chart.tools import CHART, kept, run, tool
from tests.services.installed import pinned
from tests.support.certificates import make_authority

SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
KUBERNETES = ("1.29.0", "1.35.0", "1.36.0", "1.37.0")
"""The oldest that the chart is for, and three recent ones."""
NEWEST = KUBERNETES[-1]
KINDS = {
    "Deployment",
    "Job",
    "CronJob",
    "Pod",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "Ingress",
}
KINDS |= {"ScaledObject", "TriggerAuthentication", "PodMonitor", "ServiceMonitor", "PrometheusRule"}
SECRETS = {"DATABASE_URL": "postgresql://app:secret@db/app", "SMTP_CONNECTION_URL": "smtp://app:secret@mail:587"}
SECRETS |= dict.fromkeys(("WAYBILL_WEBHOOK_URL", "WAYBILL_SLACK_WEBHOOK_URL"), "https://receiver.example.com/secret")
SECRETS |= {"WAYBILL_WEBHOOK_SECRET": f"whsec_{'x' * 32}"}
NEEDS = {"consumer": CONSUMER_NEEDS, "notify": NOTIFY_NEEDS, "doctor": CONSUMER_NEEDS}
NEEDS |= {"migrate": ("DATABASE_URL",), "topics": ("KAFKA_BOOTSTRAP_SERVERS",)}
NEEDS |= {"create": ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")}
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


@pytest.fixture(scope="module")
def locations(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where kubeconform finds schemas: those of Kubernetes, and those of custom resources."""
    versions, folder = pinned(), tmp_path_factory.mktemp("schemas")
    for version in KUBERNETES:
        write_kubernetes(kept(f"kubernetes-schemas-{versions['KUBERNETES_SCHEMAS']}"), folder, version)
    kinds = "-".join(versions[each] for each in ("PROMETHEUS_OPERATOR", "KEDA", "GATEWAY_API"))
    write_custom(kept(f"crds-{kinds}"), folder)
    built_in = "{{.NormalizedKubernetesVersion}}/{{.ResourceKind}}{{.KindSuffix}}.json"
    custom = "{{.Group}}/{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"
    return ["-schema-location", f"{folder}/{built_in}", "-schema-location", f"{folder}/{custom}"]


def render(values: Path, version: str = NEWEST, *more: str) -> str:
    return run(
        "helm", "template", "release", ".", "--namespace", "exports", "--kube-version", version, "-f", values, *more
    )


def validate(manifests: str, version: str, locations: list[str]) -> dict[str, int]:
    options = ("-strict", "-summary", "-output", "json", "-kubernetes-version", version)
    told = run("kubeconform", *options, *locations, stdin=manifests)
    summary: dict[str, int] = json.loads(told)["summary"]
    return summary


@pytest.mark.parametrize("values", SCENARIOS, ids=lambda path: path.stem)
def test_lint_has_nothing_to_say(values: Path) -> None:
    run("helm", "lint", "--strict", "--quiet", "--kube-version", NEWEST, "-f", values, ".")


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_of_every_scenario_is_what_kubernetes_and_the_operators_take(
    version: str, locations: list[str]
) -> None:
    manifests = "\n---\n".join(render(values, version) for values in SCENARIOS)
    objects = [each for each in yaml.load_all(manifests, Loader=yaml.CSafeLoader) if each]

    assert validate(manifests, version, locations) == {"valid": len(objects), "invalid": 0, "errors": 0, "skipped": 0}
    assert {each["kind"] for each in objects} >= KINDS


def test_validation_refuses_a_field_that_a_custom_resource_does_not_have(locations: list[str]) -> None:
    manifests = render(CHART / "ci/keda-values.yaml").replace("pollingInterval:", "pollInterval:")
    command: list[str | Path] = [tool("kubeconform"), "-strict", "-kubernetes-version", NEWEST, *locations]

    ran = subprocess.run(command, input=manifests, capture_output=True, text=True, check=False)

    assert ran.returncode == 1
    assert "pollInterval" in ran.stdout


def test_the_suites_pass() -> None:
    run("helm-unittest", "--strict", "-f", "tests/*_test.yaml", ".")


def test_the_readme_is_made_from_the_values_all_of_them_explained() -> None:
    made = run("helm-docs", "--dry-run", "--log-level", "warning")

    assert made.strip() == (CHART / "README.md").read_text().strip(), "run `make chart-readme`"
    assert [row for row in made.splitlines() if row.startswith("|") and row.endswith("|  |")] == []


def paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{name}.")


def maps(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every map of the schema whose keys are named, by its path."""
    if "properties" in schema:
        yield prefix, schema
        for name, inner in schema["properties"].items():
            yield from maps(inner, f"{prefix}{name}.")


def test_the_schema_names_no_value_that_there_is_not() -> None:
    named = {f"{prefix}{name}" for prefix, schema in maps(SCHEMA) for name in schema["properties"]}
    pod = {f"pod.{name}" for name in SCHEMA["definitions"]["pod"]["properties"]}

    assert named | pod <= set(paths(VALUES))


def test_the_schema_refuses_every_value_that_it_does_not_name() -> None:
    lenient = [path for path, schema in (*maps(SCHEMA), *maps(SCHEMA["definitions"])) if schema["additionalProperties"]]

    assert lenient == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("consumer.replicsa=3", "'replicsa' not allowed"),
        ("settings.DATABASE_URL=postgresql://app:secret@db/app", "DATABASE_URL"),
        ("settings.SMTP_CONNECTION_URL=smtp://app:secret@mail", "SMTP_CONNECTION_URL"),
        ("settings.DATABASE_PASSWORD=secret", "DATABASE_PASSWORD"),
        ("settings.LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS=secret", "LANGFUSE_GOOGLE_CLOUD_STORAGE_CREDENTIALS"),
        ("settings.KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET=secret", "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET"),
        ("settings.SMTP_OAUTH_REFRESH_TOKEN=secret", "SMTP_OAUTH_REFRESH_TOKEN"),
        ("settings.WAYBILL_WEBHOOK_URL=https://example.com/secret", "WAYBILL_WEBHOOK_URL"),
        ("settings.WAYBILL_SLACK_WEBHOOK_URL=https://example.com/secret", "WAYBILL_SLACK_WEBHOOK_URL"),
        ("settings.WAYBILL_SLOT=9", "WAYBILL_SLOT"),
        ("settings.WAYBIL_SLOTS=9", "WAYBIL_SLOTS"),
        ("image.digest=latest", "/image/digest"),
        ("secrets.database.existingSecret=", "secrets.database.existingSecret is missing"),
        ("autoscaling.enabled=true,keda.enabled=true", "choose one"),
        ("metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true", "choose one"),
        ("ingress.enabled=true", "ingress.host is missing"),
        ("httpRoute.enabled=true", "httpRoute.parentRefs is missing"),
        ("httpRoute.enabled=true,httpRoute.parentRefs[0].name=public", "httpRoute.hostnames is missing"),
        ("httpRoute.parentRefs[0].kind=Gateway", "name"),
        ("hooks.annotations.a=1", "/hooks/annotations/a"),
        ("privateCA.existingSecret=a,privateCA.existingConfigMap=b", "choose one"),
        ("privateCA.key=", "/privateCA/key"),
        ("schedules.daily.project=p,schedules.daily.last=1d", "schedule"),
        ("schedules.daily.schedule=@daily,schedules.daily.project=p,schedules.daily.last=1w", "/schedules/daily/last"),
        ("schedules.Daily.schedule=@daily,schedules.Daily.project=p,schedules.Daily.last=1d", "Daily"),
        (f"schedules.{'x' * 45}.schedule=@daily,schedules.{'x' * 45}.project=p,schedules.{'x' * 45}.last=1d", "52"),
    ],
)
def test_a_wrong_value_is_refused_by_name(wrong: str, words: str) -> None:
    command: list[str | Path] = [
        tool("helm"),
        "template",
        CHART,
        "--kube-version",
        NEWEST,
        "-f",
        CHART / "ci/minimal-values.yaml",
    ]

    ran = subprocess.run([*command, "--set", wrong], capture_output=True, text=True, check=False)

    assert ran.returncode != 0
    assert words in ran.stderr


def checksums(*more: str) -> list[str]:
    manifests = yaml.safe_load_all(render(CHART / "ci/minimal-values.yaml", NEWEST, *more))
    pods = [each["spec"]["template"] for each in manifests if each["kind"] == "Deployment"]
    return [pod["metadata"]["annotations"]["checksum/config"] for pod in pods]


def test_a_changed_setting_restarts_the_pods_and_nothing_else_does() -> None:
    assert checksums("--set", "settings.WAYBILL_SLOTS=3") != checksums() == checksums("--set", "consumer.replicas=9")


def pod_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    """The specification of an object's pods; empty for an object without pods."""
    spec: dict[str, Any] = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    return spec if manifest["kind"] == "Pod" else spec.get("template", {}).get("spec", {})


def containers(values: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Every container of Waybill's with the variables that it gets, something fitting for each secret."""
    objects = list(yaml.load_all(render(values), Loader=yaml.CSafeLoader))
    shared = {each["metadata"]["name"]: each["data"] for each in objects if each["kind"] == "ConfigMap"}
    for each in objects:
        spec = pod_spec(each)
        for container in spec.get("containers", [])[:1]:
            variables: dict[str, str] = {}
            for source in container.get("envFrom", []):
                variables |= shared.get(source["configMapRef"]["name"], {})
            for own in container["env"]:
                variables[own["name"]] = own.get("value", SECRETS.get(own["name"], "x" * 32))
            yield container, variables


@pytest.mark.parametrize("values", SCENARIOS, ids=lambda path: path.stem)
def test_every_command_gets_the_settings_that_it_needs_and_can_read_them(
    values: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started = []
    authorities = make_authority(tmp_path).file
    for container, variables in containers(values):
        command, *_ = container["args"]
        mounted = tuple(mount["mountPath"] for mount in container["volumeMounts"])
        for name in {"SSL_CERT_FILE", "KAFKA_SSL_CA_LOCATION"} & variables.keys():
            assert variables[name].startswith(mounted)
            variables[name] = str(authorities)
        for field in Settings.model_fields.values():
            monkeypatch.delenv(str(field.alias), raising=False)
        load(variables, needs=NEEDS[command])
        started.append(command)

    assert {"consumer", "notify", "migrate", "doctor"} <= set(started)


def test_a_schedule_runs_create_with_options_that_it_takes() -> None:
    create = _COMMANDS["create"].load("create")
    read = {}
    for container, _ in containers(CHART / "ci/everything-values.yaml"):
        command, *options = container["args"]
        if command == "create":
            # The kubelet replaces $$ with $.
            given = create.make_context(command, [option.replace("$$", "$") for option in options]).params
            read[given["project"]] = [given[name] for name in ("table", "last", "format_", "user", "filters")]

    assert read == {
        "cm9x8y7z6w5v4u3t2s1r0q9p0": ["traces", "1d", "PARQUET", "cm1a2b3c4d5e6f7g8h9i0j1k2", ["name=$(HOME)"]],
        "-starts-with-a-dash": ["scores", "1h", "CSV", "", ()],
    }


@pytest.mark.parametrize("text", ["123", "true", "0x1f"])
def test_names_that_yaml_reads_as_another_type_stay_texts(text: str, locations: list[str], tmp_path: Path) -> None:
    secrets = {name: {"existingSecret": text} for name in VALUES["secrets"]}
    secrets["kafka"] |= {"caSecret": text, "certificateSecret": text}
    names = {
        "secrets": secrets,
        "nameOverride": text,
        "serviceAccount": {"name": text},
        "global": {"imagePullSecrets": [text]},
        "pod": {"priorityClassName": text, "runtimeClassName": text},
        "privateCA": {"existingSecret": text},
        "ingress": {"enabled": True, "host": text, "className": text},
        "schedules": {text: {"schedule": "0 1 * * *", "project": text, "last": "1d"}},
    }
    (values := tmp_path / "values.yaml").write_text(yaml.safe_dump(names))

    manifests = render(values, NEWEST, "--namespace", text)

    objects = [each for each in yaml.load_all(manifests, Loader=yaml.CSafeLoader) if each]
    assert validate(manifests, NEWEST, locations) == {"valid": len(objects), "invalid": 0, "errors": 0, "skipped": 0}


def test_dashes_at_the_end_of_a_name_that_is_cut_are_removed(tmp_path: Path) -> None:
    (values := tmp_path / "values.yaml").write_text(
        yaml.safe_dump({"fullnameOverride": f"{'x' * 48}--y", "secrets": {"database": {"existingSecret": "langfuse"}}})
    )

    names = [each["metadata"]["name"] for each in yaml.load_all(render(values), Loader=yaml.CSafeLoader) if each]

    assert [name for name in names if name.endswith("-")] == []


def test_kubernetes_replaces_no_part_of_a_setting_or_an_option(tmp_path: Path) -> None:
    text = "a$$b $(KAFKA_BOOTSTRAP_SERVERS) $$(HOME) ${X}"
    schedule = {"schedule": "0 1 * * *", "project": "p", "last": "1d", "options": [f"--name={text}"]}
    (values := tmp_path / "values.yaml").write_text(
        yaml.safe_dump(
            {
                "secrets": {"database": {"existingSecret": "langfuse"}},
                "settings": {"WAYBILL_EMAIL_FOOTER": text},
                "schedules": {"daily": schedule},
            }
        )
    )

    footers, names = set(), set()
    for container, variables in containers(values):
        own = {each["name"] for each in container["env"]}
        footer = variables["WAYBILL_EMAIL_FOOTER"]
        footers.add(replace_variables(footer) if "WAYBILL_EMAIL_FOOTER" in own else footer)
        names |= {replace_variables(each) for each in container["args"] if each.startswith("--name=")}

    assert (footers, names) == ({text}, {f"--name={text}"})


def replace_variables(text: str) -> str:
    """Replace what the kubelet does, where every variable has the value `replaced`: $(NAME), and $$ by $."""
    return re.sub(r"\$(\$|\([^)]*\))", lambda found: "$" if found[1] == "$" else "replaced", text)


def settings_of(values: Path) -> set[str]:
    return set(yaml.safe_load(values.read_text()).get("settings", {}))


@pytest.mark.parametrize("values", [CHART / "values.yaml", *SCENARIOS], ids=lambda path: path.stem)
def test_scenarios_set_only_what_waybill_reads(values: Path) -> None:
    assert settings_of(values) <= {str(field.alias) for field in Settings.model_fields.values()}


def test_the_limit_of_a_consumer_has_room_for_the_largest_row_in_each_slot() -> None:
    settings, resources = load({}), VALUES["consumer"]["resources"]
    rule = 250 + settings.slots * (65 + 2.5 * settings.part_size_mib)

    assert int(resources["requests"]["memory"].removesuffix("Mi")) >= rule
    assert int(resources["limits"]["memory"].removesuffix("Mi")) >= rule + settings.slots * 12 * settings.max_row_mib


def test_every_secret_setting_comes_from_a_secret() -> None:
    names = SCHEMA["properties"]["settings"]
    may_hold_a_secret = {name.strip("^$") for name in names["patternProperties"]}
    refused = set(names["propertyNames"]["not"]["enum"]) - {"WAYBILL_HTTP_PORT", "WAYBILL_INTERNAL_PORT"}
    secret = {str(field.alias) for field in Settings.model_fields.values() if "SecretStr" in str(field.annotation)}
    logins = ((), ("--set", "settings.KAFKA_SASL_MECHANISM=OAUTHBEARER"))
    referred = {
        variable["name"]
        for login in logins
        for each in yaml.safe_load_all(render(CHART / "ci/everything-values.yaml", NEWEST, *login))
        if each["kind"] == "Deployment"
        for variable in each["spec"]["template"]["spec"]["containers"][0]["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }

    assert secret <= refused | may_hold_a_secret == referred
