"""Tools: Python functions that a model may call."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastq.schema import construct, json_schema, types_of

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from fastq.completion import ToolCall

__all__ = ["Tools", "describe"]

MAX_RESULT = 1 << 20
"""Most characters of what a tool gives; more would not fit any context."""

SECTION = re.compile(r"^(args|arguments|parameters|returns?|yields?|raises|examples?|notes?)\s*:\s*$", re.IGNORECASE)
ARGUMENTS = re.compile(r"^(args|arguments|parameters)\s*:\s*$", re.IGNORECASE)


def describe(function: Callable[..., Any]) -> dict[str, Any]:
    """The description of a function in the OpenAI form, for ``tools=``.

    Name, text and parameters are those of the function: its name, its docstring up to the first section, and its
    parameters with their annotations (see :mod:`fastq.schema`). A parameter is described by ``Annotated[int, "text"]``,
    by its entry under ``Args:`` or by ``:param name: text``; one with a default may be left out by the model.

    Raises:
        TypeError: The function has no name, a parameter without one, or an annotation that JSON has no type for.

    Example:
        >>> from fastq.tools import describe
        >>> def weather(city: str, days: int = 1) -> str:
        ...     '''The weather forecast.
        ...
        ...     Args:
        ...         city: Where.
        ...     '''
        ...     return f"{city}: sun"
        >>> describe(weather)["function"]["parameters"]["properties"]
        {'city': {'type': 'string', 'description': 'Where.'}, 'days': {'type': 'integer'}}
    """
    name = getattr(function, "__name__", None)
    if isinstance(function, type) or not isinstance(name, str) or not name.isidentifier():
        raise TypeError(f"a tool must be a function with a name, found {function!r}")
    text, described = _read_docstring(inspect.getdoc(function) or "")
    hints, properties, required = types_of(function), {}, []
    definitions: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"tool {name}: parameter {parameter} cannot be given by name")
        try:
            schema = json_schema(hints[parameter.name]) if parameter.name in hints else {}
        except TypeError as error:
            raise TypeError(f"tool {name}: parameter {parameter.name}: {error}") from error
        definitions.update(schema.pop("$defs", {}))
        if parameter.name in described:
            schema.setdefault("description", described[parameter.name])
        properties[parameter.name] = schema
        if parameter.default is parameter.empty:
            required.append(parameter.name)
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if definitions:
        parameters["$defs"] = definitions
    return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a docstring says of the function, and of its parameters."""
    lines = text.splitlines()
    described = {
        name: " ".join(words.split()) for name, words in re.findall(r"^:param (?:\S+ )?(\w+):(.*)$", text, re.M)
    }
    end = next((i for i, line in enumerate(lines) if SECTION.match(line) or line.startswith(":")), len(lines))
    begin = next((i + 1 for i, line in enumerate(lines) if ARGUMENTS.match(line)), len(lines))
    name, indent = None, None
    for line in lines[begin:]:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if depth == 0:
            break
        indent = depth if indent is None else indent
        if depth == indent and (entry := re.match(r"\s*\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)", line)):
            name = entry[1]
            described[name] = entry[2].strip()
        elif name is not None:
            described[name] = f"{described[name]} {line.strip()}".strip()
    return "\n".join(lines[:end]).strip(), described


class Tools:
    """The tools of a call: their descriptions for the model, and the functions among them.

    Args:
        tools: Functions, or descriptions in the OpenAI form.

    Raises:
        TypeError: One of them is neither, or cannot be described.
        ValueError: Two have the same name.
    """

    descriptions: list[dict[str, Any]]
    functions: dict[str, Callable[..., Any]]
    loop: AbstractEventLoop | None
    """Where :meth:`run` awaits coroutine functions, of another thread."""

    def __init__(self, tools: Sequence[Callable[..., Any] | Mapping[str, Any]]) -> None:
        self.descriptions, self.functions, names = [], {}, set()
        self.loop = None
        for i, tool in enumerate(tools):
            if isinstance(tool, Mapping):
                description = dict(tool)
                name = description.get("function", description).get("name")
            elif callable(tool):
                description = describe(tool)
                name = description["function"]["name"]
                self.functions[name] = tool
            else:
                raise TypeError(f"tools[{i}]: expected a function or a description of one, found {type(tool).__name__}")
            if name in names:
                raise ValueError(f"tools[{i}]: there are two tools named {name}")
            names.add(name)
            self.descriptions.append(description)

    def check_runnable(self, *, asynchronous: bool) -> None:
        """Refuse what cannot be run before anything is computed.

        Raises:
            TypeError: A tool is only described, or is a coroutine function in a call that is not asynchronous.
        """
        for description in self.descriptions:
            name = description.get("function", description).get("name")
            if name not in self.functions:
                raise TypeError(f"run_tools needs functions, but tool {name} is only described")
            if not asynchronous and inspect.iscoroutinefunction(self.functions[name]):
                raise TypeError(f"tool {name} is a coroutine function: use the call for asyncio")

    def run(self, call: ToolCall) -> dict[str, Any]:
        """Run a call; gives the message that answers it.

        What goes wrong is told to the model, which may do better: arguments that do not fit, an exception of the tool.
        """
        try:
            bound = self._bind(call)
            if self.loop is not None and inspect.iscoroutinefunction(self.functions[call.name]):
                import asyncio

                return _message(call, asyncio.run_coroutine_threadsafe(bound(), self.loop).result())
            return _message(call, bound())
        except Exception as error:  # it goes to the model
            return _failure(call, error)

    async def arun(self, call: ToolCall) -> dict[str, Any]:
        """The same for asyncio: coroutines are awaited, other functions run on a thread."""
        import asyncio

        try:
            bound = self._bind(call)
            if inspect.iscoroutinefunction(self.functions[call.name]):
                return _message(call, await bound())
            return _message(call, await asyncio.to_thread(bound))
        except Exception as error:  # it goes to the model
            return _failure(call, error)

    def _bind(self, call: ToolCall) -> Callable[[], Any]:
        """The call, with its arguments as the function wants them."""
        function = self.functions.get(call.name)
        if function is None:
            raise LookupError(f"there is no tool {call.name}; the tools are {', '.join(self.functions)}")
        arguments, hints = call.arguments, types_of(function)
        inspect.signature(function).bind(**arguments)
        for name, value in arguments.items():
            if name in hints:
                arguments[name] = construct(hints[name], value, name)
        return lambda: function(**arguments)


def _message(call: ToolCall, result: Any) -> dict[str, Any]:
    text = result if isinstance(result, str) else json.dumps(result, default=str, ensure_ascii=False)
    if len(text) > MAX_RESULT:
        text = text[:MAX_RESULT] + " … (cut off)"
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": text}


def _failure(call: ToolCall, error: Exception) -> dict[str, Any]:
    return _message(call, f"error: {type(error).__name__}: {error}")
