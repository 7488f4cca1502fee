"""Completions in the shape of messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

CHUNK = "chat.completion.chunk"


def answered(completion: Any, stream: bool) -> Any:
    """A completion as the answer to a conversation."""
    if stream:
        return _answered_chunks(completion)
    choice = completion["choices"][0]
    message = {"role": "assistant", "content": choice["text"]}
    return whole(completion, message, chat_logprobs(choice["logprobs"]), choice["finish_reason"])


def _answered_chunks(chunks: Iterator[Any]) -> Iterator[Any]:
    first = True
    for chunk in chunks:
        if first:
            yield part(chunk, {"role": "assistant"}, None, None)
            first = False
        choice = chunk["choices"][0]
        delta = {"content": choice["text"]} if choice["finish_reason"] is None else {}
        yield part(chunk, delta, chat_logprobs(choice["logprobs"]), choice["finish_reason"])


def called(name: str, completion: Any, stream: bool) -> Any:
    """A completion that is the arguments of a call."""
    if stream:
        return _called_chunks(name, completion)
    choice = completion["choices"][0]
    message = calls_message([(call_id(0, name, completion), name, choice["text"])])
    return whole(completion, message, chat_logprobs(choice["logprobs"]), "tool_calls")


def calls_message(calls: list[tuple[str, str, str]]) -> dict[str, Any]:
    """A message that calls tools, each with its id, name and arguments; a single one in the old form, too."""
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if len(calls) == 1:
        message["function_call"] = {"name": calls[0][1], "arguments": calls[0][2]}
    message["tool_calls"] = [
        {"id": given, "type": "function", "function": {"name": name, "arguments": arguments}}
        for given, name, arguments in calls
    ]
    return message


def call_id(at: int, name: str, completion: Any) -> str:
    """The id of a call."""
    return f"call__{at}_{name}_{completion['id']}"


EMPTY_CALL = {"role": None, "content": None, "function_call": None, "tool_calls": None}


def call_delta(at: int, given: str, name: str, arguments: str) -> dict[str, Any]:
    """What is new in a chunk of a call."""
    call = {"index": at, "id": given, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {**EMPTY_CALL, "function_call": {"name": name, "arguments": arguments}, "tool_calls": [call]}


def _called_chunks(name: str, chunks: Iterator[Any]) -> Iterator[Any]:
    chunk = None
    for at, chunk in enumerate(chunks):
        choice = chunk["choices"][0]
        if at == 0:
            yield part(chunk, {**EMPTY_CALL, "role": "assistant"}, None, None)
        delta = call_delta(0, call_id(0, name, chunk), name, choice["text"])
        yield part(chunk, delta, chat_logprobs(choice["logprobs"]), None)
    if chunk is not None:
        yield part(chunk, EMPTY_CALL, None, "tool_calls")


def whole(completion: Any, message: dict[str, Any], logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
    """The answer to a conversation."""
    return {
        "id": "chat" + completion["id"],
        "object": "chat.completion",
        "created": completion["created"],
        "model": completion["model"],
        "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}],
        "usage": completion["usage"],
    }


def part(chunk: Any, delta: dict[str, Any], logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
    """A chunk of it."""
    return {
        "id": "chat" + chunk["id"],
        "model": chunk["model"],
        "created": chunk["created"],
        "object": CHUNK,
        "choices": [{"index": 0, "delta": dict(delta), "logprobs": logprobs, "finish_reason": finish_reason}],
    }


def chat_logprobs(logprobs: Any) -> Any:
    """Log-probabilities in the shape that messages have them."""
    if logprobs is None:
        return None
    rows = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    return {
        "content": [
            {
                "token": token,
                "bytes": None,
                "logprob": logprob,
                "top_logprobs": [
                    {"token": other, "logprob": value, "bytes": None} for other, value in (top or {}).items()
                ],
            }
            for token, logprob, top in rows
        ],
        "refusal": None,
    }
