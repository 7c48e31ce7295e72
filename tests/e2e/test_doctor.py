"""The report of `waybill doctor` about an installation."""

import json

from tests.services.stacks import Stack
from tests.support.daemons import waybill

PARTS = {"database", "clickhouse", "storage", "kafka", "mail"}


def test_doctor_reports_every_part_and_names_what_is_off_or_wrong(stack: Stack) -> None:
    environment = stack.environment()
    migrated = waybill("migrate", "--with-application-schema", environment=environment)
    assert migrated.returncode == 0, migrated.stderr

    healthy = waybill("doctor", "--json", environment=environment)
    assert json.loads(healthy.stdout) == dict.fromkeys(PARTS, "ok")
    assert healthy.returncode == 0

    without_email = waybill(
        "doctor", "--json", environment=environment | {"SMTP_CONNECTION_URL": "", "EMAIL_FROM_ADDRESS": ""}
    )
    assert "no emails are sent" in json.loads(without_email.stdout)["mail"]
    assert without_email.returncode == 0

    wrong = waybill("doctor", "--json", environment=environment | {"CLICKHOUSE_URL": "http://127.0.0.1:9"})
    found = json.loads(wrong.stdout)
    assert found["clickhouse"] != "ok"
    assert {name for name, answer in found.items() if answer == "ok"} == PARTS - {"clickhouse"}
    assert wrong.returncode == 1
