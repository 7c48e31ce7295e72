"""Keeps a daemon running: waits for its dependencies, starts its Faust app, and restarts it after a crash."""

import asyncio
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import faust

from config.metrics import Metrics
from runtime.http import Health
from runtime.retry import Backoff
from runtime.self_metrics import measure_lag

logger = logging.getLogger(__name__)

LOOP_SECONDS = 30.0
POLL_SECONDS = 1.0
START_SECONDS = 25.0
STOP_SECONDS = 20.0
JOIN_SECONDS = 30.0
"""Longer than a rebalance takes."""

EXIT_SECONDS = 10.0
LAG_SECONDS = 5.0
STABLE_SECONDS = 30.0
RESTARTS = Backoff(1, longest=30)

_stopping: set["asyncio.Future[None]"] = set()


def run_daemon(main: Coroutine[Any, Any, None]) -> None:
    """Run a daemon to its end, then end the process.

    Faust's tasks and threads ignore a cancellation for minutes while Kafka can't be reached. A daemon has finished all
    its work when `main` returns, so the process waits `EXIT_SECONDS` for them at most, and ends with status 0.
    """
    asyncio.run(_exit_after(main))


async def _exit_after(main: Coroutine[Any, Any, None]) -> None:
    await main
    exiting = threading.Timer(EXIT_SECONDS, _exit)
    exiting.daemon = True
    exiting.start()


def _exit() -> None:
    logger.warning("some threads or tasks did not end within %g s; the process exits without them", EXIT_SECONDS)
    logging.shutdown()
    os._exit(0)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; call this inside the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    return stop


async def wait_for_stop(stop: asyncio.Event, seconds: float) -> bool:
    """Wait for `seconds` or until `stop` is set; return whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    return stop.is_set()


async def run_every(
    seconds: float,
    work: Callable[[], Awaitable[object]],
    *,
    name: str,
    health: Health,
    stop: asyncio.Event,
    wake: asyncio.Event | None = None,
) -> None:
    """Do `work` now, every `seconds` and whenever `wake` is set, until `stop` is set; errors of `work` are logged.

    Each pause is up to a tenth longer or shorter, so that processes that started together don't stay in step.
    """
    wake = wake or asyncio.Event()
    while not stop.is_set():
        wake.clear()
        try:
            await work()
        except Exception:
            logger.exception("%s failed and will be tried again", name)
        health.beat(name, within=10 * seconds + LOOP_SECONDS)
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(wake.wait())]
        pause = seconds * random.uniform(0.9, 1.1)  # noqa: S311 (spreads timers, hides nothing)
        await asyncio.wait(waits, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()


async def wait_for_dependencies(health: Health, stop: asyncio.Event) -> bool:
    """Wait until every dependency answers; log which are missing, once for each reason; return False when stopped."""
    logged: set[tuple[str, str]] = set()
    while not stop.is_set():
        health.beat("start", within=LOOP_SECONDS)
        missing = {name: why for name, why in (await health.ask()).items() if why is not None}
        if not missing:
            return True
        for name, why in missing.items() - logged:
            logger.warning("waiting for %s: %s", name, why, extra={"dependency": name})
        logged = {(name, why) for name, why in logged if name in missing} | missing.items()
        await wait_for_stop(stop, POLL_SECONDS)
    return False


async def supervise(build: Callable[[], faust.App], *, health: Health, metrics: Metrics, stop: asyncio.Event) -> None:
    """Run one Faust app after another until `stop` is set, then leave the group.

    `build` makes a new app with its agents. An app that can't start or that crashes is replaced after a pause that
    doubles up to half a minute. Work that the app's agents handed to others goes on.
    """
    failures = 0
    while await wait_for_dependencies(health, stop):
        started = time.monotonic()
        await _run_once(build(), health, metrics, stop)
        if stop.is_set():
            break
        failures = 1 if time.monotonic() - started > STABLE_SECONDS else failures + 1
        pause = RESTARTS.delay(failures)
        logger.warning("the Kafka consumer stopped; restarting it in %g s", pause)
        await wait_for_stop(stop, pause)


async def _run_once(app: faust.App, health: Health, metrics: Metrics, stop: asyncio.Event) -> None:
    membership = _Membership(app, health)
    lag = asyncio.create_task(_follow_lag(app, health, metrics))
    try:
        await _first(app.start(), stop.wait(), seconds=START_SECONDS)
        while not stop.is_set() and not app.should_stop:
            health.beat("start", within=LOOP_SECONDS)
            membership.check()
            await wait_for_stop(stop, POLL_SECONDS)
    except Exception as error:  # noqa: BLE001 (Faust and its clients raise anything; the app is replaced after any error)
        logger.warning("the Kafka consumer failed: %s", error, extra={"error": type(error).__name__})
    finally:
        lag.cancel()
        metrics.kafka_lag.clear()
        health.partitions = None
        health.beat("start", within=LOOP_SECONDS)
        await _stop(app)


async def _stop(app: faust.App) -> None:
    """Stop the app, and leave it alone if that takes more than `STOP_SECONDS`: Faust ignores a cancellation."""
    stopping = asyncio.ensure_future(app.stop())
    _stopping.add(stopping)  # the loop alone would not keep it alive
    stopping.add_done_callback(_stopping.discard)
    await asyncio.wait({stopping}, timeout=STOP_SECONDS)
    if not stopping.done():
        logger.warning("the Kafka consumer did not stop within %g s", STOP_SECONDS)
    elif not stopping.cancelled() and (error := stopping.exception()):
        logger.warning("the Kafka consumer did not stop cleanly: %s", str(error) or type(error).__name__)


async def _follow_lag(app: faust.App, health: Health, metrics: Metrics) -> None:
    while True:
        await asyncio.sleep(LAG_SECONDS)
        if health.partitions is None:
            continue  # no partition is assigned, and the last measurement is still the best
        try:
            lag = await asyncio.wait_for(measure_lag(app), LAG_SECONDS)
        except Exception as error:  # noqa: BLE001 (Faust and its clients raise anything)
            logger.debug("the lag could not be measured: %s", error)
            continue
        metrics.kafka_lag.clear()  # partitions may have moved to other processes
        for topic, messages in lag.items():
            metrics.kafka_lag.labels(topic).set(messages)


class _Membership:
    """Tracks whether an app is a member of its group, and detects that it can't join.

    After a coordinator error that aiokafka does not know, it reports the error only when it is asked for messages,
    and Faust asks for messages only when it has partitions: the two wait for each other forever.
    """

    def __init__(self, app: faust.App, health: Health) -> None:
        self._health = health
        self._since: float | None = time.monotonic()
        app.on_partitions_assigned.connect(self._joined)  # type: ignore[arg-type] # mode's own example has this signature
        app.on_partitions_revoked.connect(self._left)  # type: ignore[arg-type] # the same

    def check(self) -> None:
        """Raise ConnectionError when the app has not been in its group for too long."""
        if self._since is not None and time.monotonic() - self._since > JOIN_SECONDS:
            raise ConnectionError(f"it has not been a member of its group for {JOIN_SECONDS:g} s")

    async def _joined(self, _: object, assigned: set[Any], **__: Any) -> None:
        self._since = None
        self._health.partitions = len(assigned)
        logger.info("partitions assigned", extra={"partitions": len(assigned)})

    async def _left(self, _: object, __: set[Any], **___: Any) -> None:
        self._since = time.monotonic()
        self._health.partitions = None


async def _first(*waits: Coroutine[Any, Any, Any], seconds: float) -> None:
    tasks = [asyncio.ensure_future(each) for each in waits]
    done, pending = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for each in pending:
        each.cancel()
    if pending:
        await asyncio.wait(pending, timeout=STOP_SECONDS)
    if not done:
        raise TimeoutError(f"it did not start within {seconds:g} s")
    for each in done:
        each.result()
