"""Makes the calls of blocking clients in threads of their own, and repeats those that fail temporarily."""

import random
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, wait
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from config.errors import Cancelled, Unavailable

CALL_SECONDS = 30.0
"""The longest time that a blocking call may take, with its retries."""

CHECK_RETRIES = 2
"""The next check is the next try: the reason must be known before a daemon stops waiting for it."""

CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
POLL_SECONDS = 0.25
GRACE_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """What a failed call means: the error for the caller, and whether the same call may succeed a moment later."""

    error: Exception
    temporary: bool


class Calls:
    """The calls to one store, through a client that any thread may use.

    `translate` says what an exception of the client means, with the name of the call for the text. `pauses` are the
    seconds, ±50 %, before each retry.
    """

    def __init__(self, store: str, translate: Callable[[str, Exception], Fault], pauses: tuple[float, ...]) -> None:
        self._store = store
        self._translate = translate
        self._pauses = pauses

    def limit_retries(self, most: int) -> "Calls":
        """Return the same calls, each with at most `most` retries."""
        return Calls(self._store, self._translate, self._pauses[:most])

    def start(
        self,
        name: str,
        call: Callable[[], T],
        *,
        on_retry: Callable[[], None] = lambda: None,
        pauses: tuple[float, ...] | None = None,
    ) -> Future[T]:
        """Begin a call and return immediately; the future raises what `translate` returns.

        `pauses` replaces the seconds before each retry. A cancelled future is not retried.
        """
        future: Future[T] = Future()
        chosen = self._pauses if pauses is None else pauses
        # Daemon threads, because a request that hangs must not delay the end of the process.
        threading.Thread(
            target=self._repeat, args=(future, name, call, on_retry, chosen), name=f"waybill-{name}", daemon=True
        ).start()
        return future

    def run(self, name: str, call: Callable[[], T]) -> T:
        """Make a call and wait for its result, for CALL_SECONDS at most."""
        future = self.start(name, call)
        try:
            return future.result(CALL_SECONDS)
        except FutureTimeout as error:
            future.cancel()
            raise Unavailable(f"{self._store} did not respond to {name} within {CALL_SECONDS:g} s") from error

    def _repeat(
        self,
        future: Future[T],
        name: str,
        call: Callable[[], T],
        on_retry: Callable[[], None],
        pauses: tuple[float, ...],
    ) -> None:
        for pause in (*pauses, None):
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 (the future raises it)
                fault = self._translate(name, error)
                if pause is None or not fault.temporary or future.cancelled():
                    if fault.error is not error:
                        fault.error.__cause__ = error
                    with suppress(InvalidStateError):  # nobody waits any longer
                        future.set_exception(fault.error)
                    return
                on_retry()
                time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 (spreads retries, hides nothing)
            else:
                with suppress(InvalidStateError):
                    future.set_result(result)
                return


def wait_for(call: Future[T], interrupted: threading.Event) -> T:
    """Wait for a call; once interrupted, only for a short time, because the store may still apply the request."""
    while not wait([call], timeout=POLL_SECONDS).done:
        if interrupted.is_set() and not wait([call], timeout=GRACE_SECONDS).done:
            call.cancel()
            raise Cancelled("the upload was interrupted")
    return call.result()


class PartBuffer:
    """Collects written bytes until they fill a part of `size` bytes; they are copied when the part is taken."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: list[memoryview] = []
        self.held = 0
        self.taken = 0

    @property
    def is_full(self) -> bool:
        """Whether the part has its size."""
        return self.held == self._size

    def fill(self, data: memoryview) -> memoryview:
        """Add bytes to the part, and return those that do not fit."""
        piece, rest = data[: self._size - self.held], data[self._size - self.held :]
        self._pieces.append(piece)
        self.held += len(piece)
        return rest

    def take(self) -> bytes:
        """Return the part's bytes and begin the next part."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        self.taken += self.held
        self.held = 0
        return body


def find_authorities() -> str | None:
    """Return the file of SSL_CERT_FILE, which the AWS client does not read; None if it is not set."""
    paths = ssl.get_default_verify_paths()
    return None if paths.cafile == paths.openssl_cafile else paths.cafile
