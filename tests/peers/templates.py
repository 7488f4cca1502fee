"""Compares what chat templates make of conversations with Jinja2, in the environment that `transformers` has for them.

    python tests/peers/templates.py DIR     # a folder of *.jinja, such as models/templates of llama.cpp

What a template refuses (`raise_exception`) must be refused by both. Where Python raises a TypeError or calls macros
without end, such as in a loop over None, fastq may write something: that is counted as laxer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
from fastq import Model, TemplateError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a “place” <now> & later — naïve",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "City, e.g. 'Zürich'"},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                    "days": {"type": ["integer", "null"], "minimum": 1},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["place"],
            },
            "return": {"type": "object", "properties": {"degrees": {"type": "number"}}},
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "Time", "parameters": {"type": "object", "properties": {}}},
    },
]


# Without a type or a value that only some templates understand.
SIMPLE = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string", "description": "City"}},
                "required": ["place"],
            },
            "return": {"type": "number", "description": "Degrees"},
        },
    }
]


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    return {"id": "abc123xyz", "type": "function", "function": function}


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


USER = said("user", "What’s the weather in 'Zürich' <today>?\n")
ARGUMENTS = {"place": "Zürich", "days": 2, "unit": None, "exact": True, "tags": ["a", "b's"], "limit": 1.5}
RESULT = said("tool", '{"degrees": 21.5}', tool_call_id="abc123xyz", name="get_weather")
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "system": [said("system", " Be terse. "), USER],
    "turns": [said("system", "Be terse."), USER, said("assistant", "Sunny."), said("user", "Sure?")],
    "many turns": [
        USER,
        said("assistant", "<think>\nHm.\n</think>\n\nSunny."),
        USER,
        said("assistant", " Rain "),
        USER,
    ],
    "answered": [USER, said("assistant", "Sunny.")],
    "thought": [USER, said("assistant", "Sunny.", reasoning_content="Let me see.", thinking="Let me see."), USER],
    "calls": [USER, said("assistant", "", tool_calls=[call(ARGUMENTS)]), RESULT],
    "calls with text": [
        USER,
        said("assistant", "Look:", tool_calls=[call(ARGUMENTS)]),
        RESULT,
        said("assistant", "21.5"),
        USER,
    ],
    "calls as text": [USER, said("assistant", None, tool_calls=[call(json.dumps(ARGUMENTS))]), RESULT],
    "two calls": [
        USER,
        said("assistant", "", tool_calls=[call(ARGUMENTS), call({})]),
        RESULT,
        RESULT,
        said("assistant", "Sunny."),
    ],
    "parts": [said("user", [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}])],
    "wrong order": [said("assistant", "Hi"), said("assistant", "Hi")],
    "unknown role": [said("nobody", "Hi"), USER],
    "developer": [said("developer", "Be terse."), USER],
}
VARIABLES: list[dict[str, Any]] = [
    {},
    {"enable_thinking": True, "reasoning_effort": "high", "thinking": True},
    {"enable_thinking": False, "thinking": False, "date_string": "26 Jul 2024", "documents": None},
]


class Generation(jinja2.ext.Extension):
    """The tag that marks what an assistant writes; here it marks nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_same"), [], [], body).set_lineno(line)

    def _same(self, caller: Any) -> Any:
        return caller()


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def environment() -> jinja2.Environment:
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return env


def expected(template: jinja2.Template, variables: dict[str, Any]) -> tuple[str | None, bool]:
    """What Jinja2 makes of it, if anything, and whether a mistake in the template kept it from that."""
    try:
        return template.render(bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>", **variables), False
    except jinja2.TemplateError:
        return None, False
    except (TypeError, ValueError, AttributeError, LookupError, RecursionError):
        return None, True


def found(model: Model, variables: dict[str, Any]) -> tuple[str | None, str]:
    rest = dict(variables)
    messages, tools, prompt = rest.pop("messages"), rest.pop("tools"), rest.pop("add_generation_prompt")
    try:
        return model.apply_template(messages, tools=tools, add_generation_prompt=prompt, variables=rest), ""
    except TemplateError as error:
        return None, str(error)


def compare(path: Path, model: Model, template: jinja2.Template, verbose: bool) -> bool:
    """Whether all conversations of a template come out the same; prints the first one that does not."""
    equal, wrong, raised, laxer = 0, [], 0, 0
    for name, messages in CONVERSATIONS.items():
        for tools in (None, SIMPLE, TOOLS):
            for extra in VARIABLES:
                for prompt in (True, False):
                    variables = {"messages": messages, "tools": tools, "add_generation_prompt": prompt, **extra}
                    ours, error = found(model, variables)
                    theirs, mistake = expected(template, variables)
                    raised += theirs is None
                    if ours == theirs:
                        equal += 1
                    elif mistake:
                        laxer += 1
                    else:
                        wrong.append((f"{name}, {'tools' if tools else 'no tools'}", extra, ours, theirs, error))
    print(f"{path.name}: {equal} of {equal + laxer + len(wrong)} equal, {raised} refused, {laxer} laxer", flush=True)
    for what, extra, ours, theirs, error in wrong if verbose else wrong[:1]:
        print(f"  {what}, {extra}: {error}")
        at = next((i for i, (a, b) in enumerate(zip(ours or "", theirs or "", strict=False)) if a != b), 0)
        print(f"    fastq  {ours if ours is None else ours[max(0, at - 40) : at + 120]!r}")
        print(f"    jinja2 {theirs if theirs is None else theirs[max(0, at - 40) : at + 120]!r}")
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="a part of the names")
    parser.add_argument("--verbose", action="store_true", help="print every difference")
    options = parser.parse_args()
    env = environment()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(options.folder.glob("*.jinja")):
            if options.only not in path.name:
                continue
            source = path.read_text()
            shape = tiny.Tiny(layers=1, width=32, heads=1, kv_heads=1, ffn=32, chat_template=source)
            model = Model(tiny.write(Path(folder) / "model.gguf", shape))
            results.append(compare(path, model, env.from_string(source), options.verbose))
    print(f"{sum(results)} of {len(results)} templates equal")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
