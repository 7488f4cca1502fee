"""The calls for asyncio: the same answers, a loop that goes on, and what cancels."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import fastq
from conftest import SMALL, Make

LONG: dict[str, Any] = {**SMALL, "context": 30000}
MESSAGES = [{"role": "user", "content": "a"}]


@pytest.fixture(scope="module")
def deep(make: Make) -> Path:
    """A model for prompts that take a while."""
    return make(format="Q8_0", **LONG)


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fastq"]


async def all_ended() -> None:
    """Waits until no call computes any more."""
    for _ in range(600):
        if not workers():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a cancelled call goes on")


async def text_of(stream: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in stream])


def test_answers_are_the_same(model: fastq.Model) -> None:
    options: fastq.GenerateOptions = {"max_tokens": 12, "seed": 3, "ignore_eos": True}

    async def ask() -> None:
        prompts = ["a", "b c", "d e f"]
        one, *several = await asyncio.gather(
            model.agenerate(prompts[0], **options),
            model.agenerate(prompts, **options),
            model.agenerate(prompts[0], n=2, **options),
        )
        assert one.tokens == model.generate(prompts[0], **options).tokens
        assert [c.tokens for c in several[0]] == [c.tokens for c in model.generate(prompts, **options)]
        assert [c.tokens for c in several[1]] == [c.tokens for c in model.generate(prompts[0], n=2, **options)]
        stream = model.astream("a", **options)
        assert await text_of(stream) == one.text
        assert stream.result.tokens == one.tokens
        chat = model.chat(MESSAGES, **options)
        assert (await model.achat(MESSAGES, **options)).message == chat.message
        talk = model.astream_chat(MESSAGES, **options)
        assert await text_of(talk) == chat.text
        assert talk.result.message == chat.message

    asyncio.run(ask())


def test_the_loop_goes_on_during_a_prompt(deep: Path) -> None:
    """A ticker advances while a prompt is computed."""

    async def ask() -> int:
        ticks = 0
        with fastq.Model(deep, threads=2) as m:
            task = asyncio.create_task(m.agenerate([7] * 20000, max_tokens=1))
            while not task.done():
                await asyncio.sleep(0.01)
                ticks += 1
            await task
        return ticks

    assert asyncio.run(ask()) > 10


@pytest.mark.parametrize("kind", ["agenerate", "astream", "achat"])
def test_cancelling_the_task_cancels_the_call(deep: Path, kind: str) -> None:
    async def ask() -> None:
        with fastq.Model(deep, threads=2) as m:
            if kind == "agenerate":
                task: asyncio.Task[Any] = asyncio.create_task(m.agenerate([7] * 29000, max_tokens=1))
            elif kind == "astream":
                task = asyncio.create_task(text_of(m.astream([7] * 29000, max_tokens=1)))
            else:
                task = asyncio.create_task(m.achat([{"role": "user", "content": "word " * 28000}], max_tokens=1))
            while not workers():
                assert not task.done(), "the prompt is too short for this machine"
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert workers(), "the prompt is too short for this machine"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await all_ended()
            assert len(m.generate("a", max_tokens=2, ignore_eos=True).tokens) == 2

    asyncio.run(ask())


def test_streams_that_are_left_end(model: fastq.Model) -> None:
    async def ask() -> None:
        async for _ in model.astream("a", ignore_eos=True, max_tokens=200):
            break
        gc.collect()
        await all_ended()
        async with model.astream("a", ignore_eos=True, max_tokens=200) as stream:
            await anext(stream)
        assert stream.result.finish_reason == "cancelled"
        stream = model.astream("a", ignore_eos=True, max_tokens=200)
        with pytest.raises(ValueError, match="has not ended"):
            stream.result  # noqa: B018
        await anext(stream)
        stream.cancel()
        await text_of(stream)
        assert stream.result.finish_reason == "cancelled"
        await model.astream("a").aclose()
        await all_ended()

    asyncio.run(ask())


def test_a_slow_reader_holds_up_only_itself(model: fastq.Model) -> None:
    """No more pieces are computed than are waited for, with a bound; another call is answered meanwhile."""

    async def ask() -> None:
        stream = model.astream("a", ignore_eos=True, max_tokens=150, seed=1)
        first = await anext(stream)
        assert len((await model.agenerate("b", ignore_eos=True, max_tokens=50)).tokens) == 50
        assert first + await text_of(stream) == model.generate("a", ignore_eos=True, max_tokens=150, seed=1).text

    asyncio.run(ask())


def test_errors_are_raised_where_it_is_awaited(model: fastq.Model) -> None:
    async def ask() -> None:
        with pytest.raises(TypeError, match="unknown option"):
            await model.agenerate("a", x=1)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="unknown option"):
            model.astream("a", x=1)  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="top_p"):
            await model.agenerate("a", top_p=3)
        with pytest.raises(ValueError, match="top_p"):
            await text_of(model.astream("a", top_p=3))

        def fail(_: str) -> bool:
            raise StopIteration

        with pytest.raises(RuntimeError, match="StopIteration"):
            await model.agenerate("a", ignore_eos=True, stop_when=fail)
        await all_ended()

    asyncio.run(ask())


def test_many_at_once(model: fastq.Model) -> None:
    """More calls than any default pool has threads are under way together."""
    expected = {seed: model.generate("a b", seed=seed, max_tokens=10).tokens for seed in range(40)}

    async def ask() -> None:
        answers = await asyncio.gather(*(model.agenerate("a b", seed=seed, max_tokens=10) for seed in expected))
        assert [answer.tokens for answer in answers] == list(expected.values())

    asyncio.run(ask())
