"""The helper process for pictures and gradient checks: shared tasks, limits, replacement and shutdown."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable

import pytest

from app.errors import DeadlineError, DrainingError, OverloadedError, RenderError
from app.reports.helper import Helper
from app.reports.renderer import Renderer
from app.store.loss_curves import Curve
from model.errors import ConfigError
from tests.support.curves import ONE, SMALL
from tests.support.runs import LONGEST_WAIT


def helper(seconds: float = 60, *, waiting: int = 16, cached: int = 64) -> Helper:
    return Helper("sum", seconds, nice=1, waiting=waiting, cached=cached)


def in_a_loop(scenario: Callable[[Helper], Awaitable[None]], **bounds: float) -> None:
    """Run `scenario(helper)`, then close the helper."""

    async def run() -> None:
        made = helper(**bounds)
        try:
            await scenario(made)
        finally:
            await made.close()

    asyncio.run(run())


def draw(renderer: Renderer, key: str = "a", curve: Curve = ONE) -> Awaitable[bytes]:
    return renderer.picture((key,), "draw_loss_curve", curve, "png", "light")


def refuse() -> None:
    raise ConfigError("steps", "must be at least 1. Given: 0")


def pids(helper: Helper) -> list[int]:
    assert helper._pool is not None
    return list(helper._pool._processes)


async def until_busy(helper: Helper) -> None:
    """Wait until a task has started, with the time limit of that moment."""
    async with asyncio.timeout(LONGEST_WAIT):
        while not helper._turn.locked():
            await asyncio.sleep(0)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_picture_requested_several_times_is_drawn_once():
    async def scenario() -> None:
        renderer = Renderer(60)
        try:
            first = await asyncio.gather(*(draw(renderer) for _ in range(5)))
            assert first[0].startswith(b"\x89PNG")
            assert all(picture is first[0] for picture in first)
            assert await draw(renderer) is first[0]
            assert await draw(renderer, "b", SMALL) != first[0]
            [pid] = pids(renderer.helper)
        finally:
            await renderer.helper.close()
        assert not alive(pid)

    asyncio.run(scenario())


def test_cancelled_caller_does_not_end_the_shared_task():
    async def scenario(helper: Helper) -> None:
        impatient = asyncio.create_task(helper.result(("a",), sum, [1, 2]))
        patient = asyncio.create_task(helper.result(("a",), sum, [1, 2]))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == 3

    in_a_loop(scenario)


def test_dead_helper_process_is_replaced():
    async def scenario(helper: Helper) -> None:
        await helper.result(("a",), sum, [1])
        [pid] = pids(helper)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RenderError, match="the process of the sum ended; try again"):
            await helper.result(("b",), sum, [1])
        assert await helper.result(("c",), sum, [1, 2]) == 3

    in_a_loop(scenario)


def test_task_over_the_time_limit_ends_and_later_ones_run():
    async def scenario(helper: Helper) -> None:
        await helper.result(("a",), sum, [1])
        [pid] = pids(helper)
        helper.seconds = 0.2
        long = asyncio.create_task(helper.result(("b",), time.sleep, 1000))
        await until_busy(helper)
        helper.seconds = 60  # for the next one, which starts in a new process
        behind = asyncio.create_task(helper.result(("c",), sum, [1, 2]))
        with pytest.raises(DeadlineError, match=r"the sum took longer than 0.2 s"):
            await long
        assert not alive(pid)
        assert await behind == 3

    in_a_loop(scenario)


@pytest.mark.slow
def test_error_of_a_task_is_reported_and_not_cached():
    async def scenario(helper: Helper) -> None:
        with pytest.raises(RenderError, match="the sum failed: steps must be at least 1"):
            await helper.result(("a",), refuse)
        assert await helper.result(("a",), sum, [1, 2]) == 3

    in_a_loop(scenario)


def test_stopping_ends_the_task_and_its_process():
    async def scenario(helper: Helper) -> None:
        await helper.result(("a",), sum, [1])
        [pid] = pids(helper)
        waiting = asyncio.create_task(helper.result(("b",), time.sleep, 1000))
        await until_busy(helper)
        helper.stop()
        with pytest.raises(DrainingError):
            await waiting
        assert not alive(pid)

    in_a_loop(scenario)


def test_tasks_over_the_queue_limit_are_refused():
    async def scenario(helper: Helper) -> None:
        first = asyncio.create_task(helper.result(("a",), sum, [1]))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="1 of 1 sums are waiting"):
            await helper.result(("b",), sum, [1])
        await first
        assert await helper.result(("b",), sum, [2]) == 2

    in_a_loop(scenario, waiting=1)


def test_number_of_cached_results_is_limited():
    async def scenario(helper: Helper) -> None:
        kept = await helper.result(("a",), list, "x")
        assert await helper.result(("a",), list, "x") is kept
        await helper.result(("b",), list, "x")
        await helper.result(("c",), list, "x")
        assert await helper.result(("a",), list, "x") is not kept

    in_a_loop(scenario, cached=2)
