"""Fills the stack of docker-compose.yml with sample data, once, and then requests exports of all kinds.

LOAD_TRACES is the number of traces to create, LOAD_EXPORTS the number of exports to request (0: no end), and
LOAD_SECONDS the pause between two requests.
"""

import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, select

from cli import build
from config.events import ExportRequested
from config.settings import load
from config.tables import users
from consumer.models import NewExport
from embedded.sample import PROJECTS, fill
from pipeline.tables import TABLES
from pipeline.types import FORMATS
from runtime.publisher import Outgoing

NEEDS = ("DATABASE_URL", "CLICKHOUSE_URL", "KAFKA_BOOTSTRAP_SERVERS")
COMPRESSIONS = ("none", "gzip", "zstd")
UNKNOWN_COLUMN = {"type": "string", "column": "colour", "operator": "=", "value": "red"}
ONE_IN = 10
"""One export in this many is rejected, and one in this many is cancelled immediately."""


def users_with_email(engine: Engine) -> list[str]:
    """List the ids of users with an email address."""
    with engine.connect() as connection:
        return list(connection.scalars(select(users.c.id).where(users.c.email.is_not(None)).order_by(users.c.id)))


def requests(seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield stored queries with their formats, of every table, format and compression, without end."""
    chance = random.Random(seed)  # noqa: S311 (a mix, not a secret)
    while True:
        query: dict[str, Any] = {"tableName": chance.choice(list(TABLES)), "filter": [], "orderBy": None}
        query["compression"] = chance.choice(COMPRESSIONS)
        if chance.randrange(ONE_IN) == 0:
            query["filter"] = [UNKNOWN_COLUMN]
        yield query, chance.choice(list(FORMATS))


def main() -> None:
    """Fill the tables if they are empty, then request exports."""
    settings = load(needs=NEEDS)
    traces, count, pause = (int(os.environ.get(f"LOAD_{name}", "0")) for name in ("TRACES", "EXPORTS", "SECONDS"))
    jobs = build.jobs(settings)
    if not users_with_email(jobs.engine):
        with build.clickhouse_client(settings) as client:
            fill(client, jobs.engine, rows=traces)
    people, publisher = users_with_email(jobs.engine), build.publisher(settings)
    for number, (query, format_) in enumerate(requests(seed=1), 1):
        name = f"{query['tableName']} as {format_}, {query['compression']}"
        project, person = PROJECTS[number % len(PROJECTS)], people[number % len(people)]
        new = NewExport(project_id=project, user_id=person, name=name, query=query, format=format_)
        job = jobs.create(new, datetime.now(UTC))
        if number % ONE_IN == 0:
            jobs.cancel(job, datetime.now(UTC))
        event = ExportRequested(project_id=project, batch_export_id=job.id)
        publisher.publish([Outgoing(settings.requests_topic, job.id.encode(), event.encode())])
        print(f"{number}: {name} for {project}", flush=True)  # noqa: T201 (its log)
        if number == count:
            break
        time.sleep(pause)


if __name__ == "__main__":
    main()
