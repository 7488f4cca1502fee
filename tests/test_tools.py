"""Python functions as tools."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated, Any, Literal

import pytest

from fastq.completion import ToolCall
from fastq.tools import Tools, describe


@dataclasses.dataclass
class Place:
    city: str
    country: str = "FR"


def weather(place: Place, days: int = 1, unit: Literal["C", "F"] = "C") -> dict[str, Any]:
    """The weather
    forecast.

    Longer text.

    Args:
        place: Where: a city
            and its country.
        days (int): How many days.

    Returns:
        A record.
    """
    return {"city": place.city, "days": days, "unit": unit}


def add(a: int, b: Annotated[int, "the other one"]) -> int:
    """Adds.

    :param a: the first
    :returns: the sum
    """
    return a + b


async def later(text: str) -> str:
    """Waits."""
    await asyncio.sleep(0)
    return text


def fail() -> None:
    raise RuntimeError("out of order")


def untyped(x, y=1):  # type: ignore[no-untyped-def]
    return x


def call(name: str, arguments: str) -> ToolCall:
    return ToolCall("id", name, arguments)


def test_descriptions() -> None:
    assert describe(weather) == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather\nforecast.\n\nLonger text.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"$ref": "#/$defs/Place", "description": "Where: a city and its country."},
                    "days": {"type": "integer", "description": "How many days."},
                    "unit": {"enum": ["C", "F"]},
                },
                "required": ["place"],
                "additionalProperties": False,
                "$defs": {
                    "Place": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
                        "required": ["city"],
                        "additionalProperties": False,
                    }
                },
            },
        },
    }
    parameters = describe(add)["function"]["parameters"]
    assert describe(add)["function"]["description"] == "Adds."
    assert parameters["properties"] == {
        "a": {"type": "integer", "description": "the first"},
        "b": {"type": "integer", "description": "the other one"},
    }
    assert describe(untyped)["function"]["parameters"]["properties"] == {"x": {}, "y": {}}
    assert describe(fail)["function"]["description"] == ""


def positional(a: int, /) -> None: ...
def several(*a: int) -> None: ...
def options(**a: int) -> None: ...
def wrong(a: complex) -> None: ...


@pytest.mark.parametrize("function", [positional, several, options, wrong, lambda a: a, print.__class__, 3])
def test_functions_that_are_no_tools(function: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        describe(function)


def test_tools_of_both_kinds() -> None:
    description = {"type": "function", "function": {"name": "other", "parameters": {}}}
    tools = Tools([add, description])
    assert [entry["function"]["name"] for entry in tools.descriptions] == ["add", "other"]
    assert tools.descriptions[1] == description
    with pytest.raises(ValueError, match=r"tools\[1\]: there are two tools named add"):
        Tools([add, add])
    with pytest.raises(TypeError, match=r"tools\[0\]"):
        Tools([3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="other is only described"):
        tools.check_runnable(asynchronous=True)
    with pytest.raises(TypeError, match="later is a coroutine function: use the call for asyncio"):
        Tools([later]).check_runnable(asynchronous=False)
    Tools([later]).check_runnable(asynchronous=True)


@pytest.mark.parametrize(
    ("request_", "content"),
    [
        (call("add", '{"a": 1, "b": 2}'), "3"),
        (call("weather", '{"place": {"city": "Łódź"}}'), '{"city": "Łódź", "days": 1, "unit": "C"}'),
        (call("add", '{"a": 1}'), "error: TypeError: missing a required argument: 'b'"),
        (call("add", '{"a": 1, "b": 2, "c": 3}'), "error: TypeError: got an unexpected keyword argument 'c'"),
        (call("add", '{"a": "x", "b": 2}'), "error: ValueError: a: expected int, found 'x'"),
        (call("add", '{"a": 1'), "error: ValueError: the arguments of add are not JSON"),
        (call("add", "[1]"), "error: ValueError: the arguments of add must be a JSON object"),
        (call("fail", ""), "error: RuntimeError: out of order"),
        (call("nothing", "{}"), "error: LookupError: there is no tool nothing; the tools are add, weather, fail"),
    ],
)
def test_results_and_what_goes_wrong_are_told_to_the_model(request_: ToolCall, content: str) -> None:
    tools = Tools([add, weather, fail])
    for message in (tools.run(request_), asyncio.run(tools.arun(request_))):
        assert message["content"].startswith(content)
        assert (message["role"], message["tool_call_id"], message["name"]) == ("tool", "id", request_.name)


def test_coroutines_are_awaited() -> None:
    assert asyncio.run(Tools([later]).arun(call("later", '{"text": "a"}')))["content"] == "a"


def test_results_are_bounded() -> None:
    def much() -> str:
        return "a" * 5_000_000

    assert len(Tools([much]).run(call("much", "{}"))["content"]) < 1_100_000
