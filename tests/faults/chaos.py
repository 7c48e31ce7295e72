"""The faults of the soak: each does its harm for some seconds; servers and proxies are healed after it."""

import contextlib
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from tests.faults.servers import Switched
from tests.faults.system import LEASE, Scene
from tests.support import selection
from tests.support.daemons import Daemon
from tests.support.http_proxy import Answer, Ask
from tests.support.responses import but_first_do, cut, cut_at, ends_at, refuse, slowly
from tests.support.tcp_proxy import Weather, Wire

STARTERS = 3
NUMBERS = {"consumer": 3, "notify": 2}
PATIENT = {"WAYBILL_MAX_ATTEMPTS": "12"}
MEMORY = b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED) (version 26.9.2.1)\n"


@dataclass
class Crew:
    """The daemons of the soak, kept at their number."""

    scene: Scene

    _coming: list[tuple[str, Future[Daemon]]] = field(default_factory=list)
    # The kernel ends a daemon with the thread that started it: these live on.
    _starters: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(STARTERS))

    def muster(self) -> None:
        """Have whoever has ended started anew, and do not wait for it."""
        for name, number in NUMBERS.items():
            coming = [each for each, started in self._coming if each == name and not started.done()]
            for _ in range(number - len(self.scene.living(name)) - len(coming)):
                self._coming.append((name, self._starters.submit(self.scene.start, name, PATIENT, wait=False)))

    def complete(self) -> None:
        """Wait until all are there; forget those that were before them. Who did not come amid the faults comes now."""
        wait([started for _, started in self._coming])
        for name, started in self._coming:
            if error := started.exception():
                print(f"  {name} did not start: {error}", flush=True)
        self._coming.clear()
        self.muster()
        for _, started in self._coming:
            started.result()
        self._coming.clear()
        self.scene.daemons = self.scene.living()

    def one(self, name: str) -> Daemon | None:
        """Anyone of them, if there is one just now."""
        living = self.scene.living(name)
        return self.scene.random.choice(living) if living else None


Fault = Callable[[Crew], None]


def _kill(name: str) -> Fault:
    def do(crew: Crew) -> None:
        if victim := crew.one(name):
            victim.process.kill()
            victim.process.wait()

    return do


def _terminate(name: str) -> Fault:
    def do(crew: Crew) -> None:
        if victim := crew.one(name):
            victim.process.terminate()
            status = victim.process.wait(timeout=180)
            assert status == 0, f"{victim.log.name} ended with status {status}"

    return do


def _sleep(name: str) -> Fault:
    def do(crew: Crew) -> None:
        if sleeper := crew.one(name):
            sleeper.process.send_signal(signal.SIGSTOP)
            crew.scene.pause(1, LEASE * 2)
            sleeper.process.send_signal(signal.SIGCONT)

    return do


def _wire(pick: Callable[[Scene], Wire], harm: Callable[[Wire, Scene], None]) -> Fault:
    def do(crew: Crew) -> None:
        line = pick(crew.scene)
        harm(line, crew.scene)
        crew.scene.pause(0.2, 5)
        line.cut()

    return do


def _off(pick: Callable[[Scene], Switched[Any]]) -> Fault:
    def do(crew: Crew) -> None:
        server = pick(crew.scene)
        server.off()
        crew.scene.pause(0, 3)
        server.on()

    return do


def _rows(crew: Crew) -> None:
    random = crew.scene.random
    acts = (cut_at(random.random()), ends_at(random.random()), ends_at(random.random(), lambda: iter([MEMORY])))
    crew.scene.servers.rows.add(selection.reads_rows, random.choice((*acts, slowly(1_000_000))), times=3)
    crew.scene.pause(1, 5)


def _store(crew: Crew) -> None:
    random = crew.scene.random

    def moody(ask: Ask) -> Answer:
        return refuse(503, "SlowDown")(ask) if random.random() < 0.5 else ask()

    act = random.choice((moody, cut, refuse(403, "AccessDenied"), but_first_do(cut), but_first_do(refuse(500, "X"))))
    what = random.choice(
        (selection.anything, selection.writes, selection.completes, selection.puts_manifest, selection.puts_file)
    )
    crew.scene.servers.store.add(what, act)
    crew.scene.pause(1, 5)


def _ring_again(crew: Crew) -> None:
    with contextlib.suppress(AssertionError):  # Kafka may not be back yet
        asked = crew.scene.asked
        crew.scene.ring(*crew.scene.random.sample(asked, min(20, len(asked))), times=3)


def _refuse(line: Wire, _: Scene) -> None:
    line.refuse()


def _silence(line: Wire, _: Scene) -> None:
    line.be(Weather(silent=True))


def _cut_somewhere(line: Wire, scene: Scene) -> None:
    size = scene.random.randint(100, 20_000)
    line.be(scene.random.choice((Weather(cut_after_up=size), Weather(cut_after_down=size))))


LINES: dict[str, Callable[[Scene], Wire]] = {
    "Kafka": lambda scene: scene.servers.kafka_wire,
    "Postgres": lambda scene: scene.servers.postgres_wire,
    "SMTP": lambda scene: scene.servers.smtp_wire,
}
HARMS = {"refuses": _refuse, "is silent": _silence, "is cut": _cut_somewhere}
FAULTS: dict[str, Fault] = {
    "kill -9 a consumer": _kill("consumer"),
    "SIGTERM to a consumer": _terminate("consumer"),
    "SIGSTOP a consumer": _sleep("consumer"),
    "kill -9 a notifier": _kill("notify"),
    "SIGTERM to a notifier": _terminate("notify"),
    "SIGSTOP a notifier": _sleep("notify"),
    **{f"{name} {how}": _wire(line, harm) for name, line in LINES.items() for how, harm in HARMS.items()},
    "Kafka restarts": _off(lambda scene: scene.servers.kafka),
    "Postgres restarts": _off(lambda scene: scene.servers.postgres),
    "S3 restarts": _off(lambda scene: scene.servers.s3),
    "SMTP restarts": _off(lambda scene: scene.servers.smtp),
    "ClickHouse fails": _rows,
    "S3 fails": _store,
    "events are repeated": _ring_again,
}
