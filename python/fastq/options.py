"""The options of ``generate``, ``chat`` and all that is like them, described once.

At run time this is only documentation: what the options of a call are checked against is in the compiled part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fastq.model import Model

__all__ = ["ChatOptions", "GenerateOptions"]


class GenerateOptions(TypedDict, total=False):
    """How an answer is generated. All are keyword arguments, and all may be left out.

    Names that other libraries use are understood, too: ``max_new_tokens``, ``max_completion_tokens``, ``n_predict``,
    ``num_predict`` (``max_tokens``), ``temp``, ``typical``, ``typ_p``, ``mirostat_mode``, ``repetition_penalty``,
    ``penalty_repeat``, ``penalty_last_n``, ``penalty_present``, ``penalty_freq``, ``stop_sequences`` and
    ``stop_strings``.

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
        top_n_sigma: Keep the tokens at most this many standard deviations of all logits below the largest one (Tang et
            al. 2024); 0 and below, the default, keep all.
        xtc_probability: How often the likeliest tokens are dropped, but for the least likely of those above
            ``xtc_threshold`` (XTC). Default: 0.
        xtc_threshold: See ``xtc_probability``; above 0.5 it is off. Default: 0.1.
        dynatemp_range: How far the temperature goes below and above ``temperature`` where the model is sure and where
            it is not. Default: 0.
        dynatemp_exponent: How the entropy becomes the dynamic temperature. Default: 1.
        mirostat: 1 or 2: cut by that version of mirostat (Basu et al. 2020) instead of by the options above. Default:
            0.
        mirostat_tau: The surprise in bits per token that mirostat aims at. Default: 5.
        mirostat_eta: How fast mirostat learns. Default: 0.1.
        dry_multiplier: What DRY subtracts from a token that would go on with a repetition of more than
            ``dry_allowed_length`` tokens; 0, the default, is off.
        dry_base: What that is multiplied with for each further token of the repetition. Default: 1.75.
        dry_allowed_length: The longest repetition, in tokens, that may go on for nothing. Default: 2.
        dry_penalty_last_n: How many recent tokens DRY looks at; 0 none, -1, the default, all.
        dry_sequence_breakers: Strings across which nothing counts as a repetition. Default: newline, colon, double
            quote and asterisk.
        samplers: The stages in another order, each at most once; those that are not named are off. Default:
            ``["penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"]``.
        logit_bias: Added to the logits of token ids.
        seed: Makes the answer repeatable; ``None`` takes the model's seed, or a random one (``result.seed``).
        stop: A string, or several, at which the text ends; not part of it.
        stop_when: Asked with the text so far whenever it grows; the text ends where it says true. What it raises ends
            the call.
        ignore_eos: Never choose an end token, so that the text goes on to ``max_tokens``.
        logits_processors: Functions that get all token ids so far and the logits, a float32 array by token id, before
            every token, and change the array or return another one; ``-inf`` forbids a token. What they take is added
            to the time of every token, also of answers that are computed together with this one.
        banned_strings: Strings that never come up in the answer.
        logprobs: Report how likely each token of the answer was (``result.logprobs``), with this many alternatives; at
            most 128. ``None``, the default, reports nothing.
        prompt_logprobs: The same of the tokens of the prompt, which is then computed as a whole.
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
    top_n_sigma: float
    xtc_probability: float
    xtc_threshold: float
    dynatemp_range: float
    dynatemp_exponent: float
    mirostat: Literal[0, 1, 2]
    mirostat_tau: float
    mirostat_eta: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: str | Sequence[str] | None
    samplers: Sequence[str] | None
    logit_bias: Mapping[int, float] | None
    seed: int | None
    stop: str | Sequence[str] | None
    stop_when: Callable[[str], object] | None
    ignore_eos: bool
    logits_processors: Sequence[Callable[[list[int], NDArray[np.float32]], NDArray[np.float32] | None]] | None
    banned_strings: str | Sequence[str] | None
    logprobs: int | None
    prompt_logprobs: int | None
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
