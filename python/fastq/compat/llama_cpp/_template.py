"""Conversations written by the template of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import fastq
from fastq.compat.llama_cpp import _completion, _messages
from fastq.compat.llama_cpp._formats import text_of

if TYPE_CHECKING:
    from fastq.compat.llama_cpp.llama import Llama


def handler(*, llama: Llama, messages: list[Any], **arguments: Any) -> Any:
    """Answers a conversation; see :meth:`Llama.create_chat_completion`.

    Calls of tools are read from the answer in the way that the model writes them, and a call that is demanded is
    enforced. Where the answer is to be JSON or to follow a grammar, tools are only told to the model, as in the
    original.

    Raises:
        ValueError: The template refuses the messages, or the prompt does not fit the context.
    """
    from fastq.compat.llama_cpp import llama_chat_format as chat

    functions, function_call = arguments.pop("functions", None), arguments.pop("function_call", None)
    tools, choice = chat.modern(
        functions, function_call, arguments.pop("tools", None), arguments.pop("tool_choice", None)
    )
    tool = chat.chosen(tools, choice)
    wanted = chat.grammar_of_format(arguments.pop("response_format", None)) or arguments.get("grammar")
    stream = arguments.pop("stream", False)
    # Parts that are text become one: few templates know them.
    messages = [
        {**message, "content": text_of(message)} if isinstance(message.get("content"), list) else message
        for message in messages
    ]
    with _as_value_error():
        written = llama.fastq_model.apply_template(messages, tools=tools or None)
    prompt = llama.tokenize(written.encode("utf-8"), add_bos=False, special=True)
    logprobs, top = arguments.pop("logprobs", None), arguments.pop("top_logprobs", None)
    end = llama._vocabulary.text(llama.token_eos())
    arguments |= {
        "stop": [*chat.texts(arguments.get("stop")), *([end] if end else [])],
        "logprobs": (top or 0) if logprobs else None,
        "grammar": None if tool else wanted,
    }
    if not tools or choice == "none" or (wanted and not tool):
        return _messages.answered(llama.create_completion(prompt=prompt, stream=stream, **arguments), stream)
    request = _completion.request_of(llama, prompt, None, {"echo": False, "stopping_criteria": None, **arguments})
    options = {
        **_completion.options_of(request),
        "tools": tools,
        "tool_choice": tool["function"]["name"] if tool else choice or "auto",
    }
    if stream:
        return _chunks(llama, request, messages, options)
    with _as_value_error():
        done = llama.fastq_model.chat(messages, **options)
    return _whole(llama, request, done)


def _whole(llama: Llama, request: _completion.Request, done: fastq.ChatCompletion) -> dict[str, Any]:
    calls = [(call.id, call.name, call.arguments_json) for call in done.tool_calls]
    message: dict[str, Any] = {"role": "assistant", "content": done.text}
    if calls:
        message = _messages.calls_message(calls) | ({"content": done.text} if done.text else {})
    record = _completion.record(request, "", None, None)
    record["usage"] = _completion.usage(done.usage.prompt_tokens, done.usage.completion_tokens)
    logprobs = None if request.logprobs is None else _completion.logprobs_of(llama, request, done.logprobs or [], done)
    return _messages.whole(record, message, _messages.chat_logprobs(logprobs), done.finish_reason)


def _chunks(llama: Llama, request: _completion.Request, messages: list[Any], options: Any) -> Iterator[Any]:
    """What is said, and the arguments of calls, as they are written."""
    head = _completion.record(request, "", None, None)
    yield _messages.part(head, {"role": "assistant"}, None, None)
    calls: dict[int, tuple[str, str]] = {}
    with _as_value_error(), closing(llama.fastq_model.stream_chat(messages, **options)) as stream:
        for delta in stream.events():
            if delta.kind == "content":
                yield _messages.part(head, {"content": delta.text}, None, None)
            elif delta.kind == "tool_call":
                calls[delta.index] = (delta.id, delta.name)
            elif delta.kind == "arguments":
                call = _messages.call_delta(delta.index, *calls[delta.index], delta.text)
                yield _messages.part(head, call, None, None)
        reason = stream.result.finish_reason
    yield _messages.part(head, {}, None, reason)


@contextmanager
def _as_value_error() -> Iterator[None]:
    """The original knows ``ValueError`` for these."""
    try:
        yield
    except (fastq.ContextOverflowError, fastq.TemplateError) as error:
        raise ValueError(str(error)) from error
