"""The engine: identical texts under load, admission, cancellation, deadlines, draining, model swaps."""

import asyncio
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from app.engine.engine import UNKNOWN_WAIT, Engine
from app.engine.job import Chunk, Job
from app.errors import DeadlineError, DrainingError, OverloadedError
from model.decoder import Decoder
from model.generation import Batch, generate
from model.row import Row
from tests.support.networks import VOCABULARY, mixed_request, outcome, random_network
from tests.support.runs import wait_until

ENDLESS = 10_000_000  # characters; no test waits for such a text to end


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(random_network("gru", layers=2), widest=64)


@pytest.fixture
def engines() -> Iterator[Callable[..., Engine]]:
    """Starts engines, and stops them after the test."""
    made = []

    def make(**settings: Any) -> Engine:
        made.append(Engine(**settings))
        made[-1].start()
        return made[-1]

    yield make
    for engine in made:
        engine.stop()


class Clock:
    """A clock that tests advance."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def text(length: int = 50, seed: int = 0, prompt: str = "the ", **settings: Any) -> Row:
    return Row(VOCABULARY, prompt, length, seed=seed, **settings)


def submitted(engine: Engine, job: Job) -> threading.Event:
    """Submit a job; the event is set when the job ends."""
    end = threading.Event()
    job.listen(lambda: end.set() if job.ended is not None else None)
    engine.submit(job)
    return end


async def read(chunks: AsyncIterator[list[Chunk]]) -> dict[int, str]:
    """The texts of a stream by choice; checks that the chunks are consecutive."""
    texts, reasons = {}, {}
    async for several in chunks:
        assert len({chunk.choice for chunk in several}) == len(several)
        for chunk in several:
            assert chunk.choice not in reasons, "a chunk after the last"
            assert chunk.start == len(texts.get(chunk.choice, ""))
            texts[chunk.choice] = texts.get(chunk.choice, "") + chunk.text
            if chunk.finish_reason is not None:
                reasons[chunk.choice] = chunk.finish_reason
    assert reasons.keys() == texts.keys()
    return texts


@pytest.mark.slow
def test_500_concurrent_rows_write_what_each_writes_alone(engines):
    """Requests of all kinds, streamed or not, with one or several choices, on two models."""
    decoders = [Decoder(random_network(cell, seed=seed)) for seed, cell in enumerate(("elman", "lstm"))]
    engine = engines()
    requests = [mixed_request(number) for number in range(500)]

    def rows(number: int) -> list[Row]:
        choices = range(3) if number % 50 == 0 else [requests[number]["choice"]]
        return [Row(VOCABULARY, **requests[number] | {"choice": choice}) for choice in choices]

    def alone(number: int) -> list[tuple[object, ...]]:
        found = rows(number)
        for row in found:
            batch = Batch(decoders[number % 2])
            if row.finish_reason is None:
                batch.join(row)
            while batch.rows:
                batch.advance()
        return [outcome(row) for row in found]

    async def ask(number: int, places: asyncio.Semaphore) -> list[tuple[object, ...]]:
        async with places:
            streamed, found = number % 3 == 0, rows(number)
            job = Job(decoders[number % 2], found, seconds=60, streamed=streamed)
            if streamed:
                texts = await read(engine.stream(job))
                assert texts == {choice: row.text for choice, row in enumerate(found)}
            else:
                assert await engine.run(job) == found
            return [outcome(row) for row in found]

    async def ask_all() -> list[list[tuple[object, ...]]]:
        places = asyncio.Semaphore(64)
        return await asyncio.gather(*(ask(number, places) for number in range(500)))

    answers = asyncio.run(ask_all())
    wrong = [number for number in range(500) if answers[number] != alone(number)]
    assert wrong == []
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.backlog) == (0, 0, 0)


def test_engine_writes_what_generate_writes(engines, decoder):
    async def scenario(engine: Engine) -> None:
        rows = await engine.run(Job(decoder, [text(seed=4), text(seed=5)]))
        assert [row.text for row in rows] == [
            generate(decoder.network, VOCABULARY, "the ", 50, seed=seed).text for seed in (4, 5)
        ]

    asyncio.run(scenario(engines()))


def test_stream_starts_before_the_text_is_finished(engines, decoder):
    async def scenario(engine: Engine) -> None:
        row = text(ENDLESS)
        chunks = engine.stream(Job(decoder, [row], streamed=True))
        first = await anext(chunks)
        assert first[0].text == row.text[: len(first[0].text)]
        assert row.finish_reason is None
        await chunks.aclose()
        await asyncio.to_thread(wait_until, lambda: engine.stats().running == 0, "no text is running")

    asyncio.run(scenario(engines()))


def test_chunks_that_are_not_read_are_merged_into_one(engines, decoder):
    async def scenario(engine: Engine) -> None:
        job = Job(decoder, [text(400, seed=1), text(300, seed=2)], streamed=True)
        chunks = engine.stream(job)
        await asyncio.to_thread(wait_until, lambda: job.ended is not None, "the job ends")
        (several,) = [chunk async for chunk in chunks]
        assert [(chunk.text, chunk.finish_reason) for chunk in several] == [
            (row.text, "length") for row in job.rows
        ]

    asyncio.run(scenario(engines()))


@pytest.mark.parametrize("streamed", [False, True])
def test_cancelled_task_ends_its_job(engines, decoder, streamed):
    async def scenario(engine: Engine) -> None:
        job = Job(decoder, [text(ENDLESS), text(ENDLESS, seed=1)], streamed=streamed)
        task = asyncio.create_task(read(engine.stream(job)) if streamed else engine.run(job))
        await asyncio.to_thread(wait_until, lambda: engine.stats().running == 2, "both texts are running")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until, lambda: job.ended is not None, "the job ends")
        stats = engine.stats()
        assert (stats.running, stats.waiting, stats.backlog) == (0, 0, 0)
        assert [row.finish_reason for row in job.rows] == [None, None]

    asyncio.run(scenario(engines()))


def test_waiting_job_can_be_cancelled(engines, decoder):
    engine = engines(max_rows=1)
    long, waiting = Job(decoder, [text(ENDLESS)]), Job(decoder, [text()])
    submitted(engine, long)
    wait_until(lambda: engine.stats().running == 1, "the text is running")
    end = submitted(engine, waiting)
    engine.cancel(waiting)
    assert end.wait(60)
    assert waiting.started is None
    assert engine.stats().waiting == 0
    engine.cancel(waiting)  # cancelling again has no effect
    engine.cancel(long)


@pytest.mark.parametrize("running", [True, False])
def test_job_past_its_deadline_fails(engines, decoder, running):
    clock = Clock()
    engine = engines(max_rows=1, clock=clock)
    jobs = [Job(decoder, [text(ENDLESS)], seconds=5 if running else None)]
    jobs.append(Job(decoder, [text(ENDLESS)], seconds=None if running else 5))
    ends = [submitted(engine, job) for job in jobs]
    late, end = (jobs[0], ends[0]) if running else (jobs[1], ends[1])
    wait_until(lambda: engine.stats().running == 1, "the text is running")
    clock.now += 4.9
    blocks = engine.stats().blocks
    wait_until(lambda: engine.stats().blocks > blocks + 3, "the engine makes progress")
    assert late.ended is None
    clock.now += 0.1
    assert end.wait(60)
    assert isinstance(late.error, DeadlineError)
    assert "5 s" in str(late.error)


def test_passed_deadline_raises_in_run_and_stream(engines, decoder):
    async def scenario(engine: Engine) -> None:
        with pytest.raises(DeadlineError):
            await engine.run(Job(decoder, [text(ENDLESS)], seconds=0.01))
        with pytest.raises(DeadlineError):
            await read(engine.stream(Job(decoder, [text(ENDLESS)], seconds=0.01, streamed=True)))

    asyncio.run(scenario(engines()))


@pytest.mark.slow
def test_full_queue_refuses_with_the_duration_of_the_backlog(engines, decoder):
    engine = engines(max_rows=2, max_queue=3)
    jobs = [Job(decoder, [text(ENDLESS, seed=seed)]) for seed in range(5)]
    for job in jobs:
        submitted(engine, job)
    wait_until(lambda: engine.stats().blocks > 3, "the engine makes progress")
    refused = Job(decoder, [text()])
    with pytest.raises(OverloadedError, match="5 of 5 places") as error:
        engine.submit(refused)
    assert refused.submitted is None
    stats = engine.stats()
    assert error.value.retry_after == pytest.approx(stats.backlog / stats.rate, rel=0.5)
    assert (stats.running, stats.waiting) == (2, 3)
    engine.cancel(jobs[4])
    wait_until(lambda: jobs[4].ended is not None, "the job ends")
    submitted(engine, refused)
    for job in [*jobs, refused]:
        engine.cancel(job)


def test_job_that_would_wait_past_its_deadline_is_refused(engines, decoder):
    engine = engines(max_rows=1, max_queue=3)
    jobs = [Job(decoder, [text(ENDLESS, seed=seed)]) for seed in range(2)]
    for job in jobs:
        submitted(engine, job)
    wait_until(lambda: engine.stats().blocks > 3, "the engine makes progress")
    hurried = Job(decoder, [text(5)], seconds=0.5)
    with pytest.raises(
        OverloadedError, match=r"the texts already waiting take about .* longer than the 0.5 s"
    ) as error:
        engine.submit(hurried)
    assert hurried.submitted is None
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (1, 1)
    assert error.value.retry_after == pytest.approx(stats.backlog / stats.rate - 0.5, rel=0.5)
    patient = Job(decoder, [text(5)], seconds=1e9)
    submitted(engine, patient)
    for job in [*jobs, patient]:
        engine.cancel(job)


def test_text_too_long_for_its_deadline_is_refused_immediately(engines, decoder):
    engine = engines(max_rows=1)
    wait = submitted(engine, Job(decoder, [text(2000)]))
    assert wait.wait(60)
    long = Job(decoder, [text(ENDLESS)], seconds=0.5)
    with pytest.raises(
        DeadlineError, match=r"this would take about .* longer than the 0.5 s .* fewer characters"
    ):
        engine.submit(long)
    assert long.submitted is None
    assert engine.stats().running == engine.stats().waiting == 0


def test_retry_time_before_any_measurement_is_the_default(decoder):
    engine = Engine(max_rows=1, max_queue=0)  # not started
    engine.submit(Job(decoder, [text()]))
    with pytest.raises(OverloadedError) as error:
        engine.submit(Job(decoder, [text()]))
    assert error.value.retry_after == UNKNOWN_WAIT


def test_each_row_holds_a_place_until_it_ends(engines, decoder):
    engine = engines(max_rows=4, max_queue=0)
    short, long = text(20), text(ENDLESS)
    job = Job(decoder, [short, long, text(ENDLESS, seed=2)])
    submitted(engine, job)
    wait_until(lambda: short.finish_reason is not None and engine.stats().running == 2, "the short text ends")
    with pytest.raises(OverloadedError, match="2 of 4"):
        engine.submit(Job(decoder, [text(), text(), text()]))
    submitted(engine, Job(decoder, [text(), text()])).wait(60)
    engine.cancel(job)


def test_job_wider_than_the_engine_runs_when_the_engine_is_idle(engines, decoder):
    engine = engines(max_rows=2, max_queue=1)
    rows = [text(40, seed=seed) for seed in range(7)]
    assert submitted(engine, Job(decoder, rows)).wait(60)
    assert [row.text for row in rows] == [
        generate(decoder.network, VOCABULARY, "the ", 40, seed=seed).text for seed in range(7)
    ]


def test_rows_join_in_order_of_arrival(engines, decoder):
    engine, ended = engines(max_rows=1), []
    jobs = [Job(decoder, [text(30, seed=seed)]) for seed in range(20)]
    for number, job in enumerate(jobs):
        job.listen(lambda number=number: ended.append(number))
        engine.submit(job)
    wait_until(lambda: len(ended) == 20, "all jobs end")
    assert ended == list(range(20))
    assert sorted(jobs, key=lambda job: job.started) == jobs
    assert jobs[-1].queue_seconds > 0


def test_full_model_does_not_delay_another(engines, decoder):
    engine, narrow = engines(max_rows=8), Decoder(random_network(seed=9), widest=1)
    long, second = (Job(narrow, [text(ENDLESS, seed=seed)]) for seed in range(2))
    submitted(engine, long)
    submitted(engine, second)
    assert submitted(engine, Job(decoder, [text()])).wait(60)
    assert second.started is None
    engine.cancel(long)
    wait_until(lambda: second.started is not None, "the second job starts")
    engine.cancel(second)


def test_model_swap_keeps_running_texts_on_their_weights(engines):
    old, new = (Decoder(random_network("lstm", seed=seed)) for seed in range(2))
    engine, rows, ends = engines(max_rows=64), [], []
    for number in range(60):
        row = text(300, seed=number)
        rows.append((new if number >= 30 else old, row))
        ends.append(submitted(engine, Job(rows[-1][0], [row])))
    assert all(end.wait(60) for end in ends)
    for number, (decoder, row) in enumerate(rows):
        assert row.text == generate(decoder.network, VOCABULARY, "the ", 300, seed=number).text
    wait_until(lambda: list(engine._scheduler._batches) in ([new], [old]), "unused weights are released")


@pytest.mark.parametrize("streamed", [False, True])
def test_draining_finishes_what_fits_and_fails_the_rest(engines, decoder, streamed):
    async def scenario(engine: Engine) -> None:
        long = Job(decoder, [text(ENDLESS, seed=1)], streamed=streamed)
        task = asyncio.create_task(read(engine.stream(long)) if streamed else engine.run(long))
        await asyncio.to_thread(wait_until, lambda: engine.stats().running == 1, "the text is running")
        short = asyncio.create_task(engine.run(Job(decoder, [text(3)])))
        await asyncio.sleep(0)
        engine.drain(3600)
        with pytest.raises(DrainingError):
            await engine.run(Job(decoder, [text()]))
        assert len((await short)[0].text) == 3
        await asyncio.to_thread(engine.stop)
        with pytest.raises(DrainingError, match="before the text was finished"):
            await task

    asyncio.run(scenario(engines()))


def test_stop_is_immediate_when_idle_or_after_a_drain():
    engine = Engine()
    engine.start()
    engine.stop(3600)
    busy = Engine()
    busy.start()
    decoder = Decoder(random_network())
    end = submitted(busy, Job(decoder, [text(ENDLESS)]))
    busy.drain(0)
    busy.stop(3600)
    assert end.is_set()


def test_text_of_length_zero_ends_immediately(engines, decoder):
    async def scenario(engine: Engine) -> None:
        (row,) = await engine.run(Job(decoder, [text(0, prompt="a")]))
        assert (row.text, row.finish_reason) == ("", "length")
        assert await read(engine.stream(Job(decoder, [text(0, prompt="a")], streamed=True))) == {0: ""}

    asyncio.run(scenario(engines()))


def test_failing_batch_fails_only_its_jobs(engines, decoder, monkeypatch, caplog):
    engine, broken = engines(), Decoder(random_network(seed=3))
    advance = Batch.advance

    def failing(batch: Batch, most: int) -> list[Row]:
        if batch.decoder is broken:
            raise ZeroDivisionError("a planted fault")
        return advance(batch, most)

    monkeypatch.setattr(Batch, "advance", failing)
    good, bad = Job(decoder, [text(500)]), Job(broken, [text(), text(seed=1)])
    with caplog.at_level(logging.CRITICAL, "app.engine.scheduler"):
        ends = [submitted(engine, job) for job in (good, bad)]
        assert all(end.wait(60) for end in ends)
    assert isinstance(bad.error, ZeroDivisionError)
    assert good.error is None
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.backlog) == (0, 0, 0)


def test_row_that_cannot_join_fails_only_its_job(engines, decoder, monkeypatch, caplog):
    engine, join = engines(max_rows=1), Batch.join
    misfit = text(seed=7)

    def failing(batch: Batch, row: Row) -> None:
        if row is misfit:
            raise ZeroDivisionError("a planted fault")
        join(batch, row)

    monkeypatch.setattr(Batch, "join", failing)
    bad, good = Job(decoder, [misfit, text()]), Job(decoder, [text()])
    with caplog.at_level(logging.CRITICAL, "app.engine.engine"):
        ends = [submitted(engine, job) for job in (bad, good)]
        assert all(end.wait(60) for end in ends)
    assert isinstance(bad.error, ZeroDivisionError)
    assert good.error is None
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.backlog) == (0, 0, 0)


@pytest.mark.slow
def test_counters_balance_after_random_stops_and_cancellations(engines, decoder):
    """With jobs that stop early, are cancelled or are too late, no place and no character stays counted."""
    engine, rng = engines(max_rows=6, max_queue=30), random.Random(0)
    jobs, refused = [], 0
    for number in range(150):
        rows = [
            text(rng.randrange(400), number, prompt="a" * rng.randrange(1, 50), choice=choice, stop=["e"])
            for choice in range(rng.choice([1, 1, 4]))
        ]
        job = Job(decoder, rows, seconds=rng.choice([None, 0.0]), streamed=rng.random() < 0.3)
        try:
            submitted(engine, job)
            jobs.append(job)
        except (OverloadedError, DeadlineError):
            refused += 1
            time.sleep(0.005)
        if jobs and rng.random() < 0.3:
            engine.cancel(rng.choice(jobs))
    wait_until(lambda: all(job.ended is not None for job in jobs), "all jobs end")
    wait_until(lambda: engine.stats().running == 0, "no text is running")
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.backlog) == (0, 0, 0)
    assert jobs
    assert refused


def test_closed_event_loop_does_not_disturb_the_engine(engines, decoder):
    engine = engines()
    loop = asyncio.new_event_loop()
    job = Job(decoder, [text(2000)])
    job.listen(lambda: None, loop)
    engine.submit(job)
    loop.close()
    wait_until(lambda: job.ended is not None, "the job ends")
    assert submitted(engine, Job(decoder, [text()])).wait(60)
