"""What `waybill doctor` says of an installation."""

import json

from tests.services.stacks import Stack
from tests.support.daemons import waybill

PARTS = {"database", "clickhouse", "storage", "kafka", "mail"}


def test_it_finds_all_well_and_says_what_is_off_or_wrong(stack: Stack) -> None:
    environment = stack.environment()
    migrated = waybill("migrate", "--with-application-schema", environment=environment)
    assert migrated.returncode == 0, migrated.stderr

    well = waybill("doctor", "--json", environment=environment)
    assert json.loads(well.stdout) == dict.fromkeys(PARTS, "ok")
    assert well.returncode == 0

    unmailed = waybill(
        "doctor", "--json", environment=environment | {"SMTP_CONNECTION_URL": "", "EMAIL_FROM_ADDRESS": ""}
    )
    assert "nobody will be mailed" in json.loads(unmailed.stdout)["mail"]
    assert unmailed.returncode == 0

    wrong = waybill("doctor", "--json", environment=environment | {"CLICKHOUSE_URL": "http://127.0.0.1:9"})
    found = json.loads(wrong.stdout)
    assert found["clickhouse"] != "ok"
    assert {name for name, answer in found.items() if answer == "ok"} == PARTS - {"clickhouse"}
    assert wrong.returncode == 1
