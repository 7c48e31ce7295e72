import asyncio

import pytest

from runtime.threads import in_thread, start_in_thread


def test_results_and_errors_of_threads_reach_the_event_loop() -> None:
    def fails() -> None:
        raise LookupError("odd")

    async def run() -> None:
        assert await in_thread(divmod, 7, 2) == (3, 1)
        with pytest.raises(LookupError, match="odd"):
            await in_thread(fails)
        start_in_thread(fails).cancel()

    asyncio.run(run())
