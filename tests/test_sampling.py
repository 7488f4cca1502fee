"""Sampling from Python: options of further stages, the user's own functions, log-probabilities."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq

PROMPT = "the word of the night"
PLAIN: dict[str, Any] = {"max_tokens": 24, "seed": 5, "ignore_eos": True}
Logits = npt.NDArray[np.float32]


def tokens(model: fastq.Model, **options: Any) -> list[int]:
    result: list[int] = model.generate(PROMPT, **{**PLAIN, **options}).tokens
    return result


@pytest.mark.parametrize(
    "options",
    [
        {"top_n_sigma": 0.5},
        {"xtc_probability": 1.0, "xtc_threshold": 0.01},
        {"dynatemp_range": 0.7, "temperature": 1.0, "dynatemp_exponent": 2.0},
        {"mirostat": 1, "mirostat_tau": 2.0},
        {"mirostat_mode": 2, "mirostat_tau": 2.0, "mirostat_eta": 0.2},
        {"dry_multiplier": 50.0, "dry_base": 1.5, "dry_allowed_length": 0, "dry_sequence_breakers": []},
        {"samplers": ["temperature", "top_k"], "temperature": 2.0, "top_k": 2000},
    ],
)
def test_every_stage_does_something(model: fastq.Model, options: dict[str, Any]) -> None:
    changed = tokens(model, **options)
    assert changed == tokens(model, **options)
    assert changed != tokens(model)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"xtc_probability": 2.0}, "xtc_probability"),
        ({"mirostat": 3}, "mirostat"),
        ({"mirostat_tau": -1.0, "mirostat": 1}, "mirostat_tau"),
        ({"dry_base": 0.5, "dry_multiplier": 1.0}, "dry_base"),
        ({"dry_penalty_last_n": -2}, "dry_penalty_last_n"),
        ({"dynatemp_range": -1.0}, "dynatemp_range"),
        ({"samplers": ["nucleus"]}, "nucleus"),
        ({"samplers": ["top_k", "top_k"]}, "once"),
        ({"banned_strings": [""]}, "banned"),
        ({"logprobs": 129}, "logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
    ],
)
def test_out_of_range_is_named(model: fastq.Model, options: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        tokens(model, **options)


def test_order_decides(model: fastq.Model) -> None:
    default = ["penalties", "dry", "top_n_sigma", "top_k", "typical_p", "top_p", "min_p", "xtc", "temperature"]
    assert tokens(model, samplers=default) == tokens(model) == tokens(model, samplers=None)
    assert tokens(model, samplers=[]) == tokens(model, top_k=0, top_p=1.0, min_p=0.0, temperature=1.0)


def test_banned_strings_never_come_up(model: fastq.Model) -> None:
    text = model.generate(PROMPT, **PLAIN).text
    banned = [text[3:5], text[10]]
    other = model.generate(PROMPT, banned_strings=banned, **PLAIN).text
    assert not any(string in other for string in banned)
    assert all(string in text for string in banned)


class TestProcessors:
    def test_change_or_replace(self, model: fastq.Model) -> None:
        """In place, or by another array; together they run in order."""

        def force(token: int) -> Callable[[list[int], Logits], None]:
            def change(ids: list[int], logits: Logits) -> None:
                logits[:] = -np.inf
                logits[token] = 0

            return change

        def instead(ids: list[int], logits: Logits) -> Any:
            return [0.0 if token == 320 else -np.inf for token in range(len(logits))]

        assert tokens(model, logits_processors=[force(310)], max_tokens=3) == [310] * 3
        assert tokens(model, logits_processors=[instead], max_tokens=3) == [320] * 3
        assert tokens(model, logits_processors=[force(310), instead], max_tokens=3) == [320] * 3
        nothing: list[Any] = [lambda ids, logits: None]
        assert tokens(model, logits_processors=nothing) == tokens(model, logits_processors=[]) == tokens(model)

    def test_what_they_see(self, model: fastq.Model) -> None:
        prompt, seen = model.tokenize(PROMPT), []

        def look(ids: list[int], logits: Logits) -> None:
            seen.append((list(ids), logits.copy()))

        answer = tokens(model, logits_processors=[look], max_tokens=4)
        assert [ids for ids, _ in seen] == [prompt + answer[:i] for i in range(4)]
        for ids, logits in seen:
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(logits, model.logits(ids))

    def test_exceptions_come_back_to_their_caller(self, model: fastq.Model) -> None:
        """Also where calls are computed together, and whoever computes."""

        def fail(ids: list[int], logits: Logits) -> None:
            raise LookupError("mine")

        calls: list[Any] = [model.generate, lambda *a, **o: list(model.stream(*a, **o))]
        for call in calls:
            with pytest.raises(LookupError, match="mine"):
                call(PROMPT, logits_processors=[fail], **PLAIN)
        with pytest.raises(LookupError, match="mine"):
            asyncio.run(model.agenerate(PROMPT, logits_processors=[fail], **PLAIN))
        expected = tokens(model)
        barrier = threading.Barrier(6)

        def one(which: int) -> Any:
            barrier.wait(60)
            if which % 2:
                with pytest.raises(LookupError, match="mine"):
                    tokens(model, logits_processors=[fail])
                return expected
            return tokens(model)

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(one, range(6))) == [expected] * 6

    def test_wrong_results_are_named(self, model: fastq.Model) -> None:
        cases: list[tuple[Any, type[Exception], str]] = [
            (lambda ids, logits: logits[:-1], ValueError, r"logits_processors\[0\] must give"),
            (lambda ids, logits: logits * np.nan, ValueError, r"\[0\]"),
            (lambda ids, logits: "text", ValueError, ""),
            (lambda ids: None, TypeError, "argument"),
        ]
        for processor, error, what in cases:
            with pytest.raises(error, match=what or None):
                tokens(model, logits_processors=[processor])
        with pytest.raises(TypeError, match=r"logits_processors\[1\]"):
            tokens(model, logits_processors=[print, 3])


class TestLogprobs:
    def test_of_the_answer(self, model: fastq.Model) -> None:
        """They are those of the raw logits, whatever the sampler makes of them."""
        answer = model.generate(PROMPT, logprobs=3, top_k=5, repeat_penalty=1.5, **PLAIN)
        assert answer.tokens == tokens(model, top_k=5, repeat_penalty=1.5)
        assert answer.logprobs is not None
        assert [of.token for of in answer.logprobs] == answer.tokens
        ids = model.tokenize(PROMPT)
        for at, of in enumerate(answer.logprobs):
            logits = model.logits(ids + answer.tokens[:at]).astype(np.float64)
            expected = logits - np.log(np.exp(logits).sum())
            assert of.logprob == pytest.approx(expected[of.token], abs=1e-5)
            assert [top.token for top in of.top] == list(np.argsort(-logits, kind="stable")[:3])
            assert [top.logprob for top in of.top] == pytest.approx(sorted(expected)[:-4:-1], abs=1e-5)
            assert of.text == model.detokenize([of.token], special=True) or "\N{REPLACEMENT CHARACTER}" in of.text
        assert (
            json.loads(json.dumps(answer.to_dict()))["logprobs"][0]["top"][0]["token"]
            == answer.logprobs[0].top[0].token
        )

    def test_of_the_prompt(self, model: fastq.Model) -> None:
        answer = model.generate(PROMPT, prompt_logprobs=0, **PLAIN)
        assert answer.prompt_logprobs is not None
        assert answer.logprobs is None
        first, *rest = answer.prompt_logprobs
        assert first is None
        found = [of.logprob for of in rest if of is not None]
        assert found == pytest.approx(list(model.score(PROMPT)), abs=1e-6)
        nothing = model.generate(PROMPT, prompt_logprobs=1, max_tokens=0)
        assert nothing.prompt_logprobs is not None
        assert len(nothing.prompt_logprobs) == nothing.usage.prompt_tokens

    def test_without_being_asked(self, model: fastq.Model) -> None:
        for value in (None, False):
            answer = model.generate(PROMPT, logprobs=value, **PLAIN)
            assert answer.logprobs is None
        plain = model.generate(PROMPT, logprobs=True, **PLAIN).logprobs
        assert plain is not None
        assert plain[0].top == []

    def test_of_streams_come_with_the_pieces(self, model: fastq.Model) -> None:
        stream = model.stream(PROMPT, logprobs=2, **PLAIN)
        next(stream)
        begun = stream.logprobs
        assert 0 < len(begun) < 24
        rest = "".join(stream)
        assert rest
        assert stream.logprobs == stream.result.logprobs
        assert stream.logprobs[: len(begun)] == begun
        plain = model.stream(PROMPT, **PLAIN)
        next(plain)
        assert plain.logprobs == []

        async def collect() -> None:
            stream = model.astream(PROMPT, logprobs=2, **PLAIN)
            assert stream.logprobs == []
            await anext(stream)
            assert len(stream.logprobs) > 0
            async for _ in stream:
                pass
            assert stream.logprobs == stream.result.logprobs

        asyncio.run(collect())

    def test_end_where_the_answer_does(self, model: fastq.Model) -> None:
        answer = model.generate(PROMPT, logprobs=0, stop_when=lambda text: len(text) > 10, **PLAIN)
        assert answer.logprobs is not None
        assert len(answer.logprobs) == len(answer.tokens) < 24


def test_samples_share_the_prompt(make: Any) -> None:
    """The prompt of ``n`` answers is computed once, and each answer is that of a call of its own."""
    with fastq.Model(make(), threads=2) as model:
        prompt = [5 + i % 200 for i in range(300)]
        answers = model.generate(prompt, n=4, **PLAIN)
        computed = sum(answer.timings.prefill_tokens for answer in answers)
        assert len(prompt) <= computed <= len(prompt) + 4 * 64
        assert sum(answer.usage.cached_tokens for answer in answers) >= 3 * (len(prompt) - 64)
    for i, answer in enumerate(answers):
        with fastq.Model(make(), threads=2) as alone:
            assert alone.generate(prompt, **{**PLAIN, "seed": 5 + i}).tokens == answer.tokens
