"""The options of ``generate``, ``chat`` and all that is like them, described once.

At run time this is only documentation: what the options of a call are checked against is in the compiled part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from fastq.model import Model

__all__ = ["ChatOptions", "GenerateOptions"]


class GenerateOptions(TypedDict, total=False):
    """How an answer is generated. All are keyword arguments, and all may be left out.

    Names that other libraries use are understood, too: ``max_new_tokens``, ``max_completion_tokens``, ``n_predict``,
    ``num_predict`` (``max_tokens``), ``temp``, ``typical``, ``repetition_penalty``, ``penalty_repeat``,
    ``penalty_last_n``, ``penalty_present``, ``penalty_freq``, ``stop_sequences`` and ``stop_strings``.

    Attributes:
        max_tokens: Most tokens to generate; ``None`` for as many as the context holds. Default: 256; of a chat,
            ``None``.
        temperature: Divides the logits before drawing; 0 takes the likeliest token (greedy). Default: 0.8.
        top_k: Keep the ``k`` likeliest tokens; 0 keeps all. Default: 40.
        top_p: Keep the likeliest tokens up to this probability mass (Holtzman et al. 2020); 1 keeps all. Default: 0.95.
        min_p: Drop tokens below this share of the likeliest one's probability; 0 keeps all. Default: 0.05.
        typical_p: Locally typical sampling (Meister et al. 2022); 1, the default, keeps all.
        repeat_penalty: Divides positive and multiplies negative logits of recent tokens; 1, the default, is off.
        repeat_last_n: How many recent tokens the penalties look at; 0 none, -1 all. Default: 64.
        presence_penalty: Subtracted once from logits of recent tokens. Default: 0.
        frequency_penalty: Subtracted once for each occurrence among the recent tokens. Default: 0.
        logit_bias: Added to the logits of token ids.
        seed: Makes the answer repeatable; ``None`` takes the model's seed, or a random one (``result.seed``).
        stop: A string, or several, at which the text ends; not part of it.
        stop_when: Asked with the text so far whenever it grows; the text ends where it says true. What it raises ends
            the call.
        ignore_eos: Never choose an end token, so that the text goes on to ``max_tokens``.
        overflow: What happens when prompt and answer exceed the context. ``"error"`` (default): a prompt that is too
            long raises, and an answer ends with ``"length"``. ``"shift"``: the oldest half of what follows the first
            message is dropped, as often as needed. ``"truncate-middle"``: the middle of the prompt is dropped.
        speculate: Guess tokens ahead, which costs memory or time but never changes the answer: ``"ngram"`` looks in the
            text itself for what followed before, a smaller model with the same vocabulary is asked. ``None`` does not.
        schema: What the answer must be: a JSON Schema (``dict``), a pydantic model, a dataclass, a ``TypedDict``, or a
            type made of ``list``, ``dict``, ``Literal``, ``Optional``, unions and the simple types. The answer is
            JSON; ``.parsed`` makes a value of the type of it.
        regex: A regular expression that the whole answer must match.
        choices: Strings of which the answer must be one.
        grammar: A grammar in GBNF, as llama.cpp has it, or in Lark's notation (see :class:`fastq.Lark`) that the answer
            must follow. At most one of the last four may be given.
    """

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repeat_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_when: Callable[[str], object] | None
    ignore_eos: bool
    overflow: Literal["error", "shift", "truncate-middle"]
    speculate: Literal["ngram"] | Model | None
    schema: Any
    regex: str | None
    choices: Sequence[str] | None
    grammar: str | None


class ChatOptions(GenerateOptions, total=False):
    """What a chat takes beyond the options of :class:`GenerateOptions`.

    Attributes:
        tools: What the model may call: functions, whose names, annotations and docstrings describe them (see
            :func:`fastq.tools.describe`), or descriptions in the OpenAI form.
        tool_choice: ``"auto"`` (default) lets the model decide, ``"none"`` forbids calls, ``"required"`` demands one,
            and the name of a tool demands that one. What is demanded is enforced by a grammar, arguments included.
        variables: Further variables of the chat template, such as ``{"enable_thinking": False}``.
    """

    tools: Sequence[Callable[..., Any] | Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any]
    variables: Mapping[str, Any] | None
