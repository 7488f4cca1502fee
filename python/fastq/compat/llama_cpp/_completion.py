"""Completions of a prompt: the request in the terms of fastq, and the answer in the shape of the original."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastq.compat.llama_cpp import llama_grammar
from fastq.compat.llama_cpp._processors import Hook, functions

if TYPE_CHECKING:
    from fastq import Completion, TokenLogprob
    from fastq.compat.llama_cpp.llama import Llama
    from fastq.compat.llama_cpp.llama_types import CompletionLogprobs


@dataclass
class Request:
    """A completion that is asked for.

    Attributes:
        prompt: Its token ids.
        shown: Its text, for ``echo``.
        options: What :class:`fastq.GenerateOptions` describes.
        processors: Functions that change logits.
        criteria: Functions that end the answer.
        logprobs: How many alternatives of each token are told; ``None`` for no log-probabilities.
        echo: Whether the answer begins with the prompt.
        model: The name of the model in the answer.
    """

    prompt: list[int]
    shown: str
    options: dict[str, Any]
    processors: list[Callable[..., Any]] = field(default_factory=list)
    criteria: list[Callable[..., Any]] = field(default_factory=list)
    logprobs: int | None = None
    echo: bool = False
    model: str = ""


def sampling(llama: Llama, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the sampler and the grammar, of the arguments that all ways to generate have.

    A negative temperature draws from the distribution as it is. ``tfs_z`` and ``penalize_nl`` have no effect, as in the
    original.

    Raises:
        ValueError: ``mirostat_mode`` is none of its values.
        TypeError: ``grammar`` is no grammar.
    """
    options = {name: arguments[name] for name in PASSED_ON}
    options["top_k"] = max(options["top_k"], 0)
    for share in ("top_p", "typical_p"):
        options[share] = min(max(options[share], SMALLEST_SHARE), 1.0)
    options["repeat_last_n"] = llama.last_n_tokens_size
    options.update(llama_grammar.option(arguments["grammar"]))
    temperature, mirostat = arguments["temperature"], arguments["mirostat_mode"]
    if mirostat not in (0, 1, 2):
        raise ValueError(f"mirostat_mode must be 0, 1 or 2, found {mirostat!r}")
    if temperature < 0.0:
        options.update(temperature=1.0, top_p=1.0, min_p=0.0, typical_p=1.0, top_k=0)
    elif mirostat and temperature > 0.0:
        tau, eta = arguments["mirostat_tau"], arguments["mirostat_eta"]
        options.update(mirostat=mirostat, mirostat_tau=tau, mirostat_eta=eta)
    if llama.draft_model is not None:
        options["speculate"] = "ngram"
    return options


SMALLEST_SHARE = 1e-6
"""llama.cpp takes shares of 0 and less, too, and keeps one token."""

PASSED_ON = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "top_k",
    "repeat_penalty",
    "frequency_penalty",
    "presence_penalty",
)
"""Arguments that have the same meaning in fastq."""


def tokens_of(llama: Llama, prompt: str | list[int], suffix: str | None) -> list[int]:
    """The prompt as tokens; with a suffix, in the order that models for filling in the middle were trained with.

    Raises:
        TypeError: The prompt is neither text nor tokens.
        ValueError: The model has no tokens for filling in.
    """
    vocabulary = llama._vocabulary
    if isinstance(prompt, str):
        begin = llama.tokenize(prompt.encode("utf-8"), add_bos=suffix is None, special=suffix is None)
    elif isinstance(prompt, list):
        begin = list(prompt)
    else:
        raise TypeError(f"prompt: expected str or a list of token ids, found {type(prompt).__name__}")
    if suffix is not None:
        marks = [vocabulary.named(f"fim_{short}", long) for short, long in FILL_IN]
        if min(marks) < 0:
            raise ValueError("suffix: the model has no tokens for filling in the middle")
        before, after, middle = marks
        end = llama.tokenize(suffix.encode("utf-8"), add_bos=False, special=False)
        bos = [vocabulary.bos] if vocabulary.adds_bos else []
        begin = [*bos, before, *begin, after, *end, middle]
    if not begin and vocabulary.bos >= 0:
        begin = [vocabulary.bos]
    return begin


FILL_IN = (("pre", "prefix"), ("suf", "suffix"), ("mid", "middle"))


def room(llama: Llama, prompt: list[int], max_tokens: int | None) -> int:
    """How many tokens the answer may have.

    Raises:
        ValueError: The prompt leaves no room for any.
    """
    context = llama.n_ctx()
    if len(prompt) >= context:
        raise ValueError(f"Requested tokens ({len(prompt)}) exceed context window of {context}")
    free = context - len(prompt)
    return free if max_tokens is None or max_tokens <= 0 else min(max_tokens, free)


class Run:
    """One answer under way, and then what it was.

    Attributes:
        text: The text.
        tokens: Its tokens.
        finish_reason: ``"stop"`` or ``"length"``.
        logprobs: Of the tokens of the pieces so far, where they were asked for.
    """

    def __init__(self, llama: Llama, request: Request) -> None:
        self.llama = llama
        self.request = request
        self.text, self.finish_reason = "", "length"
        self.tokens: list[int] = []
        self.completion: Completion | None = None
        self.logprobs: list[TokenLogprob] = []

    def pieces(self) -> Iterator[str]:
        """The text piece by piece. When it has ended, the attributes are there."""
        request = self.request
        hook = Hook(len(request.prompt), request.processors, request.criteria)
        options = options_of(request, hook)
        with closing(self.llama.fastq_model.stream(request.prompt, **options)) as stream:
            hook.cancel = stream.cancel
            for piece in stream:
                # The engine may have chosen another token before it heard of the end.
                if hook.stopped is not None:
                    break
                self.text += piece
                if request.logprobs is not None:
                    self.logprobs = stream.logprobs
                yield piece
            stream.cancel()
            self.completion = done = stream.result
        self.tokens, self.finish_reason = list(done.tokens), done.finish_reason
        if hook.stopped is None:
            rest = done.text[len(self.text) :]
        else:
            self.tokens, self.finish_reason = hook.stopped, "stop"
            whole = self.llama.detokenize(hook.stopped).decode("utf-8", errors="ignore")
            rest = whole[len(self.text) :] if whole.startswith(self.text) else ""
        self.text += rest
        self.logprobs = (done.logprobs or [])[: len(self.tokens)]
        self.llama._remember(request.prompt + self.tokens)
        if rest:
            yield rest


def options_of(request: Request, hook: Hook | None = None) -> dict[str, Any]:
    """All options of the engine."""
    options = dict(request.options)
    if request.processors or request.criteria:
        options["logits_processors"] = [hook or Hook(len(request.prompt), request.processors, ())]
    if request.logprobs is not None:
        options["logprobs"] = request.logprobs
        if request.echo:
            options["prompt_logprobs"] = request.logprobs
    return options


def completion(llama: Llama, request: Request) -> dict[str, Any]:
    """The whole answer."""
    run = Run(llama, request)
    for _ in run.pieces():
        pass
    logprobs = None if request.logprobs is None else logprobs_of(llama, request, run.logprobs, run.completion)
    answer = record(request, (request.shown if request.echo else "") + run.text, logprobs, run.finish_reason)
    answer["usage"] = usage(len(request.prompt), len(run.tokens))
    return answer


def chunks(llama: Llama, request: Request) -> Iterator[dict[str, Any]]:
    """The answer in chunks; the last has no text and tells why the answer ended.

    With log-probabilities, each chunk is a token.
    """
    run, head = Run(llama, request), record(request, "", None, None)
    told, offset = 0, len(request.shown)

    def of_tokens() -> Iterator[dict[str, Any]]:
        nonlocal told, offset
        for row in run.logprobs[told:]:
            logprobs = _told(llama, [row.token], [row], offset)
            (text,) = logprobs["tokens"]
            told, offset = told + 1, offset + len(text)
            yield _chunk(head, text, logprobs, None)

    for piece in run.pieces():
        if request.logprobs is None:
            yield _chunk(head, piece, None, None)
        else:
            yield from of_tokens()
    # Those of texts that were held back.
    yield from of_tokens()
    yield _chunk(head, "", None, run.finish_reason)


def logprobs_of(
    llama: Llama, request: Request, answer: list[TokenLogprob], done: Completion | None
) -> CompletionLogprobs:
    """The log-probabilities of an answer that has ended, with ``echo`` those of the prompt before it."""
    rows: list[TokenLogprob | None] = [*answer]
    tokens = [row.token for row in answer]
    if not request.echo:
        return _told(llama, tokens, rows, len(request.shown))
    before = (done.prompt_logprobs if done else None) or []
    skip = 1 if request.prompt[:1] == [llama.token_bos()] else 0
    rows, tokens = before[skip:] + rows, request.prompt[skip:] + tokens
    # As in the OpenAI API, the first token has none.
    rows[:1] = [None]
    return _told(llama, tokens, rows, 0)


def _told(llama: Llama, tokens: list[int], rows: list[Any], offset: int) -> CompletionLogprobs:
    """Log-probabilities of tokens, of which the first begins at ``offset`` of the text."""

    def text(token: int) -> str:
        return llama.detokenize([token]).decode("utf-8", errors="ignore")

    result: CompletionLogprobs = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
    for token, row in zip(tokens, rows, strict=True):
        shown = text(token)
        result["tokens"].append(shown)
        result["text_offset"].append(offset)
        result["token_logprobs"].append(None if row is None else row.logprob)
        top = None if row is None else {text(of.token): of.logprob for of in row.top} | {shown: row.logprob}
        result["top_logprobs"].append(top)
        offset += len(shown)
    return result


def usage(prompt: int, answer: int) -> dict[str, int]:
    """Token counts."""
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def record(request: Request, text: str, logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
    """An answer without the token counts."""
    return {
        "id": f"cmpl-{uuid.uuid4()}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}],
    }


def _chunk(head: dict[str, Any], text: str, logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
    return {**head, "choices": [{"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}]}


def request_of(llama: Llama, prompt: str | list[int], suffix: str | None, arguments: dict[str, Any]) -> Request:
    """A request, of the arguments of :meth:`Llama.create_completion`.

    Raises:
        ValueError: The prompt does not fit the context, or an argument is out of range.
        TypeError: An argument has a wrong type.
    """
    tokens = tokens_of(llama, prompt, suffix)
    options = sampling(llama, arguments)
    if arguments["logit_bias"]:
        options["logit_bias"] = {int(token): float(bias) for token, bias in arguments["logit_bias"].items()}
    options["max_tokens"] = room(llama, tokens, arguments["max_tokens"])
    stop = arguments["stop"]
    options["stop"] = [stop] if isinstance(stop, str) else list(stop or ())
    options["seed"] = llama._next_seed(arguments["seed"])
    return Request(
        prompt=tokens,
        shown=prompt if isinstance(prompt, str) else llama.detokenize(tokens).decode("utf-8", errors="ignore"),
        options=options,
        processors=functions(arguments["logits_processor"], "logits_processor"),
        criteria=functions(arguments["stopping_criteria"], "stopping_criteria"),
        logprobs=arguments["logprobs"],
        echo=bool(arguments["echo"]),
        model=llama.model_path if arguments["model"] is None else arguments["model"],
    )
