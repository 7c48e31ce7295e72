"""The faults of the soak test: each lasts for some seconds; servers and proxies are healed after it."""

import contextlib
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from tests.faults.servers import RestartableServer
from tests.faults.system import LEASE, System
from tests.support import selection
from tests.support.daemons import Daemon
from tests.support.http_proxy import Forward, Response
from tests.support.responses import after_forwarding, cut, cut_at, end_at, refuse, slowly
from tests.support.tcp_proxy import Conditions, TcpProxy

STARTERS = 3
NUMBERS = {"consumer": 3, "notify": 2}
LINKS = {"WAYBILL_PUBLIC_URL": "http://links.test", "WAYBILL_SECRET_KEY": "0123456789abcdef" * 2}
SETTINGS = {"WAYBILL_MAX_ATTEMPTS": "12"} | LINKS
BROKEN = b"Code: 210. DB::Exception: I/O error: Broken pipe. (NETWORK_ERROR) (version 26.9.2.1)\n"


@dataclass
class Daemons:
    """The daemons of the soak test, kept at their number."""

    system: System

    _starting: list[tuple[str, Future[Daemon]]] = field(default_factory=list)
    # The kernel kills a daemon when the thread that started it ends: these threads stay.
    _starters: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(STARTERS))

    def start_missing(self) -> None:
        """Start daemons in place of those that ended, without waiting for them."""
        for name, number in NUMBERS.items():
            starting = [each for each, started in self._starting if each == name and not started.done()]
            for _ in range(number - len(self.system.alive(name)) - len(starting)):
                self._starting.append((name, self._starters.submit(self.system.start, name, SETTINGS, wait=False)))

    def wait_until_complete(self) -> None:
        """Wait until all daemons run, starting those again that a fault kept from starting; forget the ended ones."""
        wait([started for _, started in self._starting])
        for name, started in self._starting:
            if error := started.exception():
                print(f"  {name} did not start: {error}", flush=True)
        self._starting.clear()
        self.start_missing()
        for _, started in self._starting:
            started.result()
        self._starting.clear()
        self.system.daemons = self.system.alive()

    def pick(self, name: str) -> Daemon | None:
        """A random running daemon, if there is one."""
        running = self.system.alive(name)
        return self.system.random.choice(running) if running else None


Fault = Callable[[Daemons], None]


def _kill(name: str) -> Fault:
    def run(daemons: Daemons) -> None:
        if victim := daemons.pick(name):
            victim.process.kill()
            victim.process.wait()

    return run


def _terminate(name: str) -> Fault:
    def run(daemons: Daemons) -> None:
        if victim := daemons.pick(name):
            victim.process.terminate()
            status = victim.process.wait(timeout=180)
            assert status == 0, f"{victim.log.name} ended with status {status}"

    return run


def _sleep(name: str) -> Fault:
    def run(daemons: Daemons) -> None:
        if sleeper := daemons.pick(name):
            sleeper.process.send_signal(signal.SIGSTOP)
            daemons.system.pause(1, LEASE * 2)
            sleeper.process.send_signal(signal.SIGCONT)

    return run


def _disturb(pick: Callable[[System], TcpProxy], harm: Callable[[TcpProxy, System], None]) -> Fault:
    def run(daemons: Daemons) -> None:
        line = pick(daemons.system)
        harm(line, daemons.system)
        daemons.system.pause(0.2, 5)
        line.cut()

    return run


def _restart(pick: Callable[[System], RestartableServer[Any]]) -> Fault:
    def run(daemons: Daemons) -> None:
        server = pick(daemons.system)
        server.stop()
        daemons.system.pause(0, 3)
        server.start()

    return run


def _fail_reads(daemons: Daemons) -> None:
    random = daemons.system.random
    acts = (cut_at(random.random()), end_at(random.random()), end_at(random.random(), lambda: iter([BROKEN])))
    daemons.system.servers.clickhouse_proxy.add(
        selection.reads_rows, random.choice((*acts, slowly(1_000_000))), times=3
    )
    daemons.system.pause(1, 5)


def _fail_store(daemons: Daemons) -> None:
    random = daemons.system.random

    def fail_sometimes(forward: Forward) -> Response:
        return refuse(503, "SlowDown")(forward) if random.random() < 0.5 else forward()

    act = random.choice(
        (fail_sometimes, cut, refuse(403, "AccessDenied"), after_forwarding(cut), after_forwarding(refuse(500, "X")))
    )
    what = random.choice(
        (selection.anything, selection.writes, selection.completes, selection.puts_manifest, selection.puts_file)
    )
    daemons.system.servers.store_proxy.add(what, act)
    daemons.system.pause(1, 5)


def _repeat_events(daemons: Daemons) -> None:
    with contextlib.suppress(AssertionError):  # Kafka may not be back yet
        asked = daemons.system.requested
        daemons.system.publish_requests(*daemons.system.random.sample(asked, min(20, len(asked))), times=3)


def _refuse(line: TcpProxy, _: System) -> None:
    line.refuse()


def _silence(line: TcpProxy, _: System) -> None:
    line.apply(Conditions(silent=True))


def _cut_somewhere(line: TcpProxy, system: System) -> None:
    size = system.random.randint(100, 20_000)
    line.apply(system.random.choice((Conditions(cut_after_up=size), Conditions(cut_after_down=size))))


LINES: dict[str, Callable[[System], TcpProxy]] = {
    "Kafka": lambda system: system.servers.kafka_proxy,
    "Postgres": lambda system: system.servers.postgres_proxy,
    "SMTP": lambda system: system.servers.smtp_proxy,
}
HARMS = {"refuses": _refuse, "is silent": _silence, "is cut": _cut_somewhere}
FAULTS: dict[str, Fault] = {
    "kill -9 a consumer": _kill("consumer"),
    "SIGTERM to a consumer": _terminate("consumer"),
    "SIGSTOP a consumer": _sleep("consumer"),
    "kill -9 a notifier": _kill("notify"),
    "SIGTERM to a notifier": _terminate("notify"),
    "SIGSTOP a notifier": _sleep("notify"),
    **{f"{name} {how}": _disturb(line, harm) for name, line in LINES.items() for how, harm in HARMS.items()},
    "Kafka restarts": _restart(lambda system: system.servers.kafka),
    "Postgres restarts": _restart(lambda system: system.servers.postgres),
    "S3 restarts": _restart(lambda system: system.servers.store),
    "SMTP restarts": _restart(lambda system: system.servers.smtp),
    "ClickHouse fails": _fail_reads,
    "S3 fails": _fail_store,
    "events are repeated": _repeat_events,
}
