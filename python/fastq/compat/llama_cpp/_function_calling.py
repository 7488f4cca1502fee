"""Calls of tools by any model: the format ``chatml-function-calling``.

The model is told to begin an answer with ``message:`` or ``functions.NAME:``. A grammar makes it choose one, and
another one makes the arguments fit their schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastq.compat.llama_cpp import _messages
from fastq.compat.llama_cpp._formats import text_of
from fastq.compat.llama_cpp.llama_grammar import LlamaGrammar

if TYPE_CHECKING:
    from fastq.compat.llama_cpp.llama import Llama

MAX_CALLS = 16
"""Calls in one answer; a model that repeats itself would never end."""

END = "<|im_end|>"

HOW = """

You can respond to users messages with either a single message or one or more function calls.

To respond with a message begin the message with 'message:', use the following format:

message:
<message>

To respond with one or more function calls begin the message with 'functions.<function_name>:', \
use the following format:

functions.<function_name>:
{ "arg1": "value1", "arg2": "value2" }
functions.<function_name>:
{ "arg1": "value1", "arg2": "value2" }"""


def prompt_of(messages: list[Any], tools: list[Any] | None) -> str:
    """The conversation, with the tools in the message of the system; one is added where there is none."""
    told = ""
    if tools:
        described = [(tool["function"]["name"], tool["function"].get("parameters", {})) for tool in tools]
        listed = [f"\nfunctions.{name}:\n{json.dumps(schema, sort_keys=True)}\n" for name, schema in described]
        told = "\n\nYou have access to the following functions:\n" + "".join(listed) + HOW
        if not any(message["role"] == "system" for message in messages):
            messages = [{"role": "system", "content": ""}, *messages]
    parts = []
    for message in messages:
        role, text = message["role"], text_of(message)
        parts.append(f"<|im_start|>{role}\n")
        if role == "system":
            parts.append(f"{text}{told}{END}\n")
        elif role != "assistant":
            parts.append(f"{text}{END}\n")
        else:
            calls = message.get("tool_calls") or ()
            if text:
                parts.append(("message:\n" if tools else "") + text)
            parts += [f"functions.{call['function']['name']}:\n{call['function']['arguments']}" for call in calls]
            parts.append(END + "\n")
    return "".join(parts) + "<|im_start|>assistant\n"


def handler(
    *,
    llama: Llama,
    messages: list[Any],
    functions: Any = None,
    function_call: Any = None,
    tools: Any = None,
    tool_choice: Any = None,
    response_format: Any = None,
    stop: Any = None,
    stream: bool = False,
    grammar: Any = None,
    logprobs: bool | None = None,
    top_logprobs: int | None = None,
    **rest: Any,
) -> Any:
    """Answers a conversation; see :meth:`Llama.create_chat_completion`. Without ``tool_choice`` no tool is called."""
    from fastq.compat.llama_cpp import llama_chat_format as chat

    tools, choice = chat.modern(functions, function_call, tools, tool_choice)
    rest["stop"] = [*chat.texts(stop), END]
    told = (top_logprobs or 0) if logprobs else None

    def complete(text: str, grammar: LlamaGrammar | None, stream: bool = False, **more: Any) -> Any:
        tokens = llama.tokenize(text.encode("utf-8"), add_bos=True, special=True)
        return llama.create_completion(prompt=tokens, grammar=grammar, stream=stream, **{**rest, **more})

    tool = chat.chosen(tools, choice)
    if not tools or choice in (None, "none"):
        grammar = chat.grammar_of_format(response_format) or grammar
        answer = complete(prompt_of(messages, None), grammar, stream, logprobs=told)
        return _messages.answered(answer, stream)
    text = prompt_of(messages, tools)
    schemas = {tool["function"]["name"]: tool["function"].get("parameters", {}) for tool in tools}
    if tool is not None:
        name = tool["function"]["name"]
        answer = complete(f"{text}functions.{name}:\n", chat.grammar_of_schema(schemas[name]), stream)
        return _messages.called(name, answer, stream)

    def decide(text: str, grammar: LlamaGrammar) -> tuple[str, Any]:
        done = complete(text, grammar, temperature=0.0, max_tokens=None, stop=None)
        return done["choices"][0]["text"].strip().removesuffix(":"), done

    first, done = decide(text, _heads([*(["message:"] if choice == "auto" else []), *_names(schemas)]))
    if first == "message":
        return _messages.answered(complete(text + "message:\n", None, stream, logprobs=told), stream)

    def calls() -> Iterator[tuple[str, Any]]:
        nonlocal text
        head = first
        for _ in range(MAX_CALLS):
            name = head.removeprefix("functions.")
            text += f"functions.{name}:\n"
            answer = complete(text, chat.grammar_of_schema(schemas[name]), max_tokens=None)
            yield name, answer
            text += answer["choices"][0]["text"] + "\n"
            head, _decision = decide(text, _heads(_names(schemas), optional=True))
            if not head:
                return

    return _chunks(done, calls()) if stream else _whole(done, list(calls()))


def _names(schemas: dict[str, Any]) -> list[str]:
    return [f"functions.{name}:" for name in schemas]


def _heads(texts: list[str], optional: bool = False) -> LlamaGrammar:
    """One of some texts, or also nothing."""
    one = " | ".join(json.dumps(text) for text in texts)
    return LlamaGrammar.from_string(f"root ::= ({one}){'?' if optional else ''}")


def _whole(decision: Any, answers: list[tuple[str, Any]]) -> dict[str, Any]:
    calls = [
        (_messages.call_id(at, name, answer), name, answer["choices"][0]["text"])
        for at, (name, answer) in enumerate(answers)
    ]
    usage = {key: sum(answer["usage"][key] for _, answer in answers) for key in decision["usage"]}
    return _messages.whole({**decision, "usage": usage}, _messages.calls_message(calls), None, "tool_calls")


def _chunks(decision: Any, answers: Iterator[tuple[str, Any]]) -> Iterator[Any]:
    yield _messages.part(decision, {**_messages.EMPTY_CALL, "role": "assistant"}, None, None)
    for at, (name, answer) in enumerate(answers):
        delta = _messages.call_delta(at, _messages.call_id(at, name, answer), name, answer["choices"][0]["text"])
        yield _messages.part(decision, delta, None, None)
    yield _messages.part(decision, _messages.EMPTY_CALL, None, "tool_calls")
