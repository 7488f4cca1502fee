"""Answers that must match something, and tools that a model calls."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, TypedDict

import pytest

import fastq
from conftest import SMALL, Make

OPTIONS: dict[str, Any] = {"max_tokens": 200, "seed": 1}


@pytest.fixture(scope="module")
def model(make: Make) -> Iterator[fastq.Model]:
    """With room for descriptions of tools."""
    with fastq.Model(make(format="Q8_0", **{**SMALL, "context": 4096}), threads=2) as m:
        yield m


@dataclasses.dataclass
class Person:
    name: Literal["Ann", "Bob"]
    age: int
    tags: tuple[Literal["a", "b"], Literal["c"]]


class Record(TypedDict):
    good: bool
    person: Person


class TestConstraints:
    def test_types(self, model: fastq.Model) -> None:
        for seed in range(5):
            answer = model.generate("a", schema=Person, max_tokens=300, seed=seed)
            if answer.finish_reason == "stop":
                assert isinstance(answer.parsed, Person)
                assert answer.parsed.tags[1] == "c"
        record = model.generate("a", schema=Literal["x", "y"], **OPTIONS)
        assert record.parsed in ("x", "y")
        assert model.chat([{"role": "user", "content": "a"}], schema=bool, **OPTIONS).parsed in (True, False)
        stream = model.stream("a", schema=list[Literal[1]] | None, **OPTIONS)
        assert "".join(stream) == stream.result.text
        if stream.result.finish_reason == "stop":
            assert set(stream.result.parsed or [1]) == {1}

    def test_mapping(self, model: fastq.Model) -> None:
        schema = {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}},
            "required": ["a"],
            "additionalProperties": False,
        }
        answer = model.generate("a", schema=schema, **OPTIONS)
        assert json.loads(answer.text) == answer.parsed
        assert answer.parsed["a"] in (1, 2)

    def test_regex_choices_and_grammars(self, model: fastq.Model) -> None:
        assert re.fullmatch(r"[ab]{3}\d", model.generate("a", regex=r"[ab]{3}\d", **OPTIONS).text)
        choices = ["one", "two words", "three"]
        assert model.generate("a", choices=choices, **OPTIONS).text in choices
        gbnf = 'root ::= ("x" | "y") digit\ndigit ::= [0-9]'
        assert re.fullmatch("[xy][0-9]", model.generate("a", grammar=gbnf, **OPTIONS).text)
        lark = 'start: ("x" | "y") DIGIT\nDIGIT: /[0-9]/'
        for grammar in (lark, fastq.Lark(lark)):
            assert re.fullmatch("[xy][0-9]", model.generate("a", grammar=grammar, **OPTIONS).text)
        assert len({model.generate("a", choices=choices, n=8, **OPTIONS)[i].text for i in range(8)}) > 1

    @pytest.mark.parametrize(
        "options",
        [{"regex": "("}, {"schema": {"type": "nothing"}}, {"grammar": "root ::= missing"}, {"choices": []}],
    )
    def test_what_is_wrong_is_said(self, model: fastq.Model, options: dict[str, Any]) -> None:
        with pytest.raises(fastq.GrammarError):
            model.generate("a", **options)
        with pytest.raises(ValueError):
            model.generate("a", **options)

    def test_only_one(self, model: fastq.Model) -> None:
        with pytest.raises(ValueError, match="one of"):
            model.generate("a", regex="a", choices=["a"])

    def test_cut_off(self, model: fastq.Model) -> None:
        answer = model.generate("a", schema=Person, max_tokens=2, seed=1)
        with pytest.raises(ValueError, match="cut off by max_tokens"):
            answer.parsed  # noqa: B018


CALLS: list[tuple[Any, ...]] = []


def lamp(on: bool, room: Literal["hall", "bath"]) -> str:
    """Switches a lamp.

    Args:
        on: Whether it shall be on.
        room: Where it is.
    """
    CALLS.append(("lamp", on, room))
    return "done"


async def alamp(on: bool) -> str:
    """Switches a lamp."""
    CALLS.append(("alamp", on))
    return "done"


def broken(on: bool) -> str:
    """Never works."""
    CALLS.append(("broken", on))
    raise RuntimeError("no power")


MESSAGES = [{"role": "user", "content": "Light!"}]


def test_models_of_pydantic(make: Make) -> None:
    """The real ones: fields with limits, lists of models, unions, and a check of pydantic's own."""
    pydantic = pytest.importorskip("pydantic")
    engine = pydantic.create_model(
        "Engine", kind=(Literal["gas", "electric"], ...), power=(int, pydantic.Field(ge=1, le=999))
    )
    car = pydantic.create_model(
        "Car",
        name=(str, pydantic.Field(min_length=1, max_length=8)),
        engines=(list[engine], pydantic.Field(max_length=2)),  # type: ignore[valid-type]
        year=(int | None, None),
    )
    with fastq.Model(make(width=64, heads=2, kv_heads=1, ffn=96), threads=2) as model:
        ended = 0
        for seed in range(8):
            answer = model.generate("a", schema=car, max_tokens=400, seed=seed, temperature=0.3)
            if answer.finish_reason == "stop":
                ended += 1
                parsed = answer.parsed
                assert isinstance(parsed, car)
                assert car.model_validate_json(answer.text) == parsed
                assert all(1 <= engine.power <= 999 for engine in parsed.engines)
        assert ended > 0
        adapter = pydantic.TypeAdapter(list[Literal["a", "b"]])
        answer = model.generate("a", schema=adapter, max_tokens=300, seed=1)
        assert adapter.validate_json(answer.text) == answer.parsed


class TestTools:
    def test_a_call_that_is_demanded(self, model: fastq.Model) -> None:
        """Name and arguments fit, also of a model of random weights; pieces tell the same."""
        for choice in ("required", "lamp", {"type": "function", "function": {"name": "lamp"}}):
            answer = model.chat(MESSAGES, tools=[lamp], tool_choice=choice, **OPTIONS)
            assert len(answer.tool_calls) >= 1
            assert len(answer.tool_calls) == 1 or choice == "required"
            for call in answer.tool_calls:
                assert call.name == "lamp"
                assert set(call.arguments) == {"on", "room"}
                assert call.arguments["room"] in ("hall", "bath")
            assert answer.finish_reason == "tool_calls"
            call = answer.tool_calls[0]
            message = answer.message
            assert message["tool_calls"][0]["function"]["name"] == "lamp"
            assert message["tool_calls"][0]["id"] == call.id != ""
        stream = model.stream_chat(MESSAGES, tools=[lamp], tool_choice="lamp", **OPTIONS)
        events = list(stream.events())
        assert stream.result.tool_calls == answer.tool_calls
        (begin,) = (event for event in events if event.kind == "tool_call")
        assert (begin.name, begin.id) == ("lamp", call.id)
        assert "".join(event.text for event in events if event.kind == "arguments") == call.arguments_json
        text = model.stream_chat(MESSAGES, tools=[lamp], tool_choice="lamp", **OPTIONS)
        assert "".join(text) == text.result.text

        async def collect() -> list[fastq.ChatDelta]:
            stream = model.astream_chat(MESSAGES, tools=[lamp], tool_choice="lamp", **OPTIONS)
            return [event async for event in stream.events()]

        assert asyncio.run(collect()) == events

    def test_run_tools(self, model: fastq.Model) -> None:
        """The call is run, its result goes into the conversation, and the model answers again."""
        CALLS.clear()
        answer = model.chat(MESSAGES, tools=[lamp], tool_choice="lamp", run_tools=True, max_rounds=1, **OPTIONS)
        assert len(CALLS) == 1
        calls, result, last = answer.messages[:3]
        assert calls["tool_calls"][0]["function"]["name"] == "lamp"
        assert (result["role"], result["content"]) == ("tool", "done")
        assert result["tool_call_id"] == calls["tool_calls"][0]["id"]
        assert last == answer.message
        assert MESSAGES == [{"role": "user", "content": "Light!"}]

    def test_coroutines_and_failures(self, model: fastq.Model) -> None:
        CALLS.clear()
        options: dict[str, Any] = {"run_tools": True, "max_rounds": 1, **OPTIONS}
        answer = asyncio.run(model.achat(MESSAGES, tools=[alamp], tool_choice="alamp", **options))
        assert answer.messages[1]["content"] == "done"
        answer = model.chat(MESSAGES, tools=[broken], tool_choice="broken", **options)
        assert answer.messages[1]["content"] == "error: RuntimeError: no power"
        assert [name for name, *_ in CALLS] == ["alamp", "broken"]
        with pytest.raises(TypeError, match="the call for asyncio"):
            model.chat(MESSAGES, tools=[alamp], **options)
        with pytest.raises(TypeError, match="only described"):
            model.chat(MESSAGES, tools=[{"name": "x", "parameters": {}}], **options)

    def test_session(self, model: fastq.Model) -> None:
        session = model.session(tools=[lamp], tool_choice="lamp", **OPTIONS)
        answer = session.say("Light!", run_tools=True, max_rounds=1)
        assert [message["role"] for message in session.messages[:4]] == ["user", "assistant", "tool", "assistant"]
        assert session.messages[-1] == answer.message

    def test_run_tools_in_streams(self, model: fastq.Model) -> None:
        """The events of all rounds follow each other, and the whole is that of a call without a stream."""
        options: dict[str, Any] = {
            "tools": [lamp],
            "tool_choice": "lamp",
            "run_tools": True,
            "max_rounds": 1,
            **OPTIONS,
        }
        whole = model.chat(MESSAGES, **options)
        stream = model.stream_chat(MESSAGES, **options)
        events = list(stream.events())
        kinds = [event.kind for event in events]
        assert kinds.index("tool_call") < kinds.index("tool_result")
        (result,) = (event for event in events if event.kind == "tool_result")
        assert (result.name, result.text, result.id) == ("lamp", "done", whole.messages[1]["tool_call_id"])
        assert stream.result.messages == whole.messages
        assert stream.result.tokens == whole.tokens
        assert "".join(model.stream_chat(MESSAGES, **options)) == whole.text

        async def collect() -> list[fastq.ChatDelta]:
            stream = model.astream_chat(MESSAGES, **{**options, "tools": [alamp], "tool_choice": "alamp"})
            events = [event async for event in stream.events()]
            assert stream.result.messages[1]["content"] == "done"
            return events

        assert [event.kind for event in asyncio.run(collect())].count("tool_result") == 1

    def test_a_stream_that_is_cancelled_runs_no_tools(self, model: fastq.Model) -> None:
        CALLS.clear()
        stream = model.stream_chat(MESSAGES, tools=[lamp], tool_choice="lamp", run_tools=True, **OPTIONS)
        for event in stream.events():
            if event.kind == "arguments":
                stream.cancel()
        assert stream.result.finish_reason == "cancelled"
        assert CALLS == []

    def test_sessions_for_asyncio(self, model: fastq.Model) -> None:
        options: dict[str, Any] = {"tools": [alamp], "tool_choice": "alamp", **OPTIONS}
        session, streamed = model.session(**options), model.session(**options)

        async def talk() -> None:
            answer = await session.asay("Light!", run_tools=True, max_rounds=1)
            roles = [message["role"] for message in session.messages]
            assert roles == ["user", "assistant", "tool", "assistant"]
            assert session.messages[-1] == answer.message
            stream = streamed.astream("Light!", run_tools=True, max_rounds=1)
            assert "".join([piece async for piece in stream]) == answer.text
            assert [m["content"] for m in streamed.messages] == [m["content"] for m in session.messages]
            again = streamed.astream("More!", tool_choice="auto")
            await anext(again)
            with pytest.raises(ValueError, match="is answering"):
                await streamed.asay("At once!")
            await again.aclose()
            assert [message["role"] for message in streamed.messages[4:]] == ["user", "assistant"]
            assert (await streamed.asay("And now?", tool_choice="auto")).usage.cached_tokens > 0

        asyncio.run(talk())

    def test_wrong_choices(self, model: fastq.Model) -> None:
        with pytest.raises(ValueError, match="tool_choice"):
            model.chat(MESSAGES, tools=[lamp], tool_choice="nothing", **OPTIONS)
        with pytest.raises(ValueError, match="tool"):
            model.chat(MESSAGES, tool_choice="required", **OPTIONS)
        with pytest.raises(TypeError, match="tool_choice"):
            model.chat(MESSAGES, tools=[lamp], tool_choice={"x": 1}, **OPTIONS)
        with pytest.raises(ValueError, match="exclude"):
            model.chat(MESSAGES, tools=[lamp], tool_choice="required", regex="a", **OPTIONS)
        with pytest.raises(ValueError, match="exclude"):
            model.chat(MESSAGES, n=2, run_tools=True)  # type: ignore[call-overload, unused-ignore]


def test_reasoning_is_split_off(make: Make) -> None:
    """A template that shows <think> makes it reasoning."""
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% if think %}<think>\n{% endif %}{% endif %}"
    )
    with fastq.Model(make(chat_template=template, width=64, heads=2, kv_heads=1, ffn=96), threads=2) as m:
        options: dict[str, Any] = {"regex": "<think>why</think>so", **OPTIONS}
        answer = m.chat(MESSAGES, **options)
        assert (answer.reasoning, answer.text) == ("why", "so")
        assert answer.message == {"role": "assistant", "content": "so", "reasoning_content": "why"}
        stream = m.stream_chat(MESSAGES, **options)
        assert "".join(stream) == "so"
        assert stream.result.reasoning == "why"
        begun = m.chat(MESSAGES, variables={"think": True}, regex="why</think>so", **OPTIONS)
        assert (begun.reasoning, begun.text) == ("why", "so")
