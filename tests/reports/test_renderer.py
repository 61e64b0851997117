"""The helper process that draws: started once, outlived by nothing, and replaced when it fails."""

import asyncio
import os
import signal

import pytest

from app.errors import DeadlineError, OverloadedError, RenderError
from app.reports import renderer as rendering
from app.reports.renderer import Renderer
from tests.support.curves import ONE, SMALL


def draw(renderer: Renderer, key: str = "a", curve=ONE):
    return renderer.picture((key,), "draw_loss_curve", curve, "png", "light")


def pids(renderer: Renderer) -> list[int]:
    assert renderer._pool is not None
    return list(renderer._pool._processes)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_picture_is_drawn_once_however_many_want_it():
    async def scenario() -> None:
        renderer = Renderer(60)
        try:
            first = await asyncio.gather(*(draw(renderer) for _ in range(5)))
            assert all(picture is first[0] for picture in first)
            assert await draw(renderer) is first[0]
            assert await draw(renderer, "b", SMALL) != first[0]
            [pid] = pids(renderer)
        finally:
            renderer.close()
        assert not alive(pid)

    asyncio.run(scenario())


def test_someone_who_goes_away_does_not_take_the_picture_from_others():
    async def scenario() -> None:
        renderer = Renderer(60)
        try:
            impatient = asyncio.create_task(draw(renderer))
            patient = asyncio.create_task(draw(renderer))
            await asyncio.sleep(0)
            impatient.cancel()
            assert (await patient).startswith(b"\x89PNG")
        finally:
            renderer.close()

    asyncio.run(scenario())


def test_a_helper_that_dies_is_replaced():
    async def scenario() -> None:
        renderer = Renderer(60)
        try:
            await draw(renderer)
            [pid] = pids(renderer)
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(RenderError, match="try again"):
                await draw(renderer, "b")
            assert (await draw(renderer, "c")).startswith(b"\x89PNG")
        finally:
            renderer.close()

    asyncio.run(scenario())


def test_a_picture_that_takes_too_long_is_given_up():
    async def scenario() -> None:
        renderer = Renderer(0.001)
        with pytest.raises(DeadlineError, match=r"longer than 0.001 s"):
            await draw(renderer)
        renderer.seconds = 60
        assert await draw(renderer)
        renderer.close()

    asyncio.run(scenario())


def test_only_so_many_pictures_wait(monkeypatch):
    monkeypatch.setattr(rendering, "WAITING", 1)

    async def scenario() -> None:
        renderer = Renderer(60)
        try:
            first = asyncio.create_task(draw(renderer))
            await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await draw(renderer, "b")
            await first
        finally:
            renderer.close()

    asyncio.run(scenario())


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr(rendering, "CACHED", 2)

    async def scenario() -> None:
        renderer = Renderer(60)
        try:
            first = await draw(renderer, "a")
            await draw(renderer, "b")
            await draw(renderer, "c")
            assert await draw(renderer, "a") is not first
        finally:
            renderer.close()

    asyncio.run(scenario())
