"""The records of generated texts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["ChatCompletion", "ChatDelta", "Completion", "FinishReason", "Timings", "TokenLogprob", "ToolCall", "Usage"]

FinishReason = Literal["stop"] | Literal["length"] | Literal["cancelled"] | Literal["tool_calls"]
"""Why a text ended: an end token, stop string or ``stop_when``; ``max_tokens`` or the context; ``cancel()``; or, of a
chat, because the model calls tools."""


@dataclass(frozen=True)
class Usage:
    """Token counts.

    Attributes:
        prompt_tokens: Tokens of the prompt, BOS included.
        completion_tokens: Tokens generated; an end token is not counted.
        cached_tokens: Tokens of the prompt that were computed before, for an earlier text that begins alike.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Where the time went.

    Attributes:
        load_seconds: Seconds the model took to load.
        prefill_tokens: Prompt tokens computed.
        prefill_seconds: Seconds they took.
        decode_tokens: Tokens computed one step at a time.
        decode_seconds: Seconds they took.
        peak_rss_bytes: The largest resident size of the process so far, in bytes; 0 where the system does not say.
    """

    load_seconds: float
    prefill_tokens: int
    prefill_seconds: float
    decode_tokens: int
    decode_seconds: float
    peak_rss_bytes: int

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens per second; 0.0 when none was computed."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Generated tokens per second; 0.0 when none was computed."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds > 0 else 0.0


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was to the model, at temperature 1 and before anything that samplers or grammars change.

    Attributes:
        token: Its id.
        text: Its text; U+FFFD for bytes that are part of a character.
        logprob: The natural logarithm of its probability.
        top: The likeliest tokens at this place, the likeliest first; as many as were asked for.
    """

    token: int
    text: str
    logprob: float
    top: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True)
class Completion:
    """A generated text. ``str(completion)`` is the text.

    Attributes:
        text: The text, without end tokens and without the stop string that ended it.
        tokens: Ids of the generated tokens, without the end token.
        finish_reason: ``"stop"``, ``"length"`` or ``"cancelled"``; of a chat also ``"tool_calls"``.
        usage: Token counts.
        timings: Seconds and tokens per second. The seconds are those of the steps that the text took part in, with
            whatever else was computed in them.
        seed: The seed that reproduces the answer.
        dropped_tokens: Tokens of prompt and answer that ``overflow=`` dropped.
        drafted_tokens: Tokens that ``speculate=`` guessed ahead.
        accepted_tokens: How many of them came true.
        logprobs: How likely each of ``tokens`` was, with ``logprobs=``.
        prompt_logprobs: The same of the tokens of the prompt, with ``prompt_logprobs=``; ``None`` for the first, which
            nothing is before.
        schema: What was given as ``schema=``.
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int
    dropped_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    logprobs: list[TokenLogprob] | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None
    schema: Any = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def parsed(self) -> Any:
        """The answer as a value of the type that ``schema=`` asked for; made anew by each access.

        Raises:
            ValueError: There was no ``schema=``, the answer was cut off, or a pydantic model refuses it.
        """
        from fastq.schema import parse

        if self.schema is None:
            raise ValueError("the answer has no schema to be parsed with: give schema= to the call")
        if self.finish_reason in ("length", "cancelled"):
            try:
                return parse(self.schema, self.text)
            except ValueError as error:
                why = "max_tokens or the context" if self.finish_reason == "length" else "cancel()"
                raise ValueError(
                    f"the answer was cut off by {why} and is not whole JSON: {self.text[-40:]!r}"
                ) from error
        return parse(self.schema, self.text)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain dictionaries, ready for ``json.dumps``."""
        record = asdict(self)
        del record["schema"]  # may be a class
        record["usage"]["total_tokens"] = self.usage.total_tokens
        record["timings"]["prefill_tokens_per_second"] = self.timings.prefill_tokens_per_second
        record["timings"]["decode_tokens_per_second"] = self.timings.decode_tokens_per_second
        return record


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool that the model asks for.

    Attributes:
        id: What the answer to the call refers to (``tool_call_id``).
        name: The tool.
        arguments_json: The arguments as the model wrote them: a JSON object.
    """

    id: str
    name: str
    arguments_json: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name.

        Raises:
            ValueError: What the model wrote is not a JSON object: the answer was cut off, or not constrained.
        """
        try:
            arguments = json.loads(self.arguments_json or "{}")
        except ValueError as error:
            raise ValueError(f"the arguments of {self.name} are not JSON: {error}") from error
        if not isinstance(arguments, dict):
            raise ValueError(f"the arguments of {self.name} must be a JSON object, found {self.arguments_json[:80]!r}")
        return arguments


@dataclass(frozen=True)
class ChatDelta:
    """What a piece of an answer adds to it.

    Attributes:
        kind: ``"content"`` and ``"reasoning"`` have a text; ``"tool_call"`` begins a call, with ``index``, ``id`` and
            ``name``; ``"arguments"`` has more text of the arguments of the call with that ``index``; with
            ``run_tools=True``, ``"tool_result"`` has what a call gave, as it is told to the model.
        text: The text; those of one kind, or of one call, join to the whole.
        index: Which call, from 0.
        id: What the result of the call refers to.
        name: The tool.
    """

    kind: Literal["content", "reasoning", "tool_call", "arguments", "tool_result"]
    text: str = ""
    index: int = 0
    id: str = ""
    name: str = ""


@dataclass(frozen=True)
class ChatCompletion(Completion):
    """The answer to a conversation. Its ``text`` is what is said, without reasoning and calls.

    Attributes:
        reasoning: What the model thought before, of models that do so aloud (``<think>``); ``None`` where it did not.
        tool_calls: Calls of tools that the model asks for; with ``run_tools=True`` only those that were not run.
        messages: What the call added to the conversation: the answer, and with ``run_tools=True`` the calls and their
            results before it.
    """

    reasoning: str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message in the OpenAI form, to be appended to the conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.reasoning is not None:
            message["reasoning_content"] = self.reasoning
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
                for call in self.tool_calls
            ]
        return message


def completion(record: dict[str, Any], schema: Any = None) -> Completion:
    """The record of an answer, of what the engine tells."""
    return Completion(**_fields(record), schema=schema)


def chat_completion(record: dict[str, Any], schema: Any = None) -> ChatCompletion:
    """The record of an answer to a conversation, of what the engine tells."""
    message = record.pop("message", None) or {}
    fields = _fields(record)
    calls = [
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls", ())
    ]
    if calls and fields["finish_reason"] == "stop":
        fields["finish_reason"] = "tool_calls"
    if message:
        fields["text"] = message.get("content") or ""
    answer = ChatCompletion(**fields, schema=schema, reasoning=message.get("reasoning_content"), tool_calls=calls)
    answer.messages.append(answer.message)
    return answer


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    for name in ("logprobs", "prompt_logprobs"):
        if (found := record.get(name)) is not None:
            record[name] = [None if of is None else logprob(*of) for of in found]
    usage = Usage(record.pop("prompt_tokens"), len(record["tokens"]), record.pop("cached_tokens"))
    return {**record, "usage": usage, "timings": Timings(*record["timings"])}


def logprob(token: int, text: str, value: float, top: list[tuple[int, str, float]]) -> TokenLogprob:
    """How likely a token was, of what the engine tells."""
    return TokenLogprob(token, text, value, [TokenLogprob(*other) for other in top])
