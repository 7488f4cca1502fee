"""The options of a call: one list, aliases, wrong names and types; what ends an answer; several samples."""

from __future__ import annotations

import threading
from typing import Any, get_type_hints

import numpy as np
import numpy.typing as npt
import pytest

import fastq
from conftest import SMALL, Make
from fastq import _fastq


def test_options_are_described_once() -> None:
    """What the engine takes is what `GenerateOptions` documents, with a line for each."""
    described = fastq.GenerateOptions.__annotations__.keys()
    constraints = {"schema", "regex", "choices"}
    assert set(_fastq.Options.names()) | {"grammar"} == described - constraints
    documentation = fastq.GenerateOptions.__doc__
    assert documentation is not None
    assert [name for name in described if f"\n        {name}: " not in documentation] == []
    assert fastq.ChatOptions.__doc__ is not None
    more = fastq.ChatOptions.__annotations__.keys() - described
    assert [name for name in more if f"\n        {name}: " not in fastq.ChatOptions.__doc__] == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", 'did you mean "temperature"'),
        ("max_token", 'did you mean "max_tokens"'),
        ("max_newtokens", 'did you mean "max_new_tokens"'),
        ("shema", 'did you mean "schema"'),
        ("xyzzy", "GenerateOptions lists all"),
    ],
)
def test_unknown_options(model: fastq.Model, name: str, hint: str) -> None:
    calls: list[Any] = [model.generate, model.stream]
    for call in calls:
        with pytest.raises(TypeError, match=f'unknown option "{name}"; .*{hint}'):
            call("a", **{name: 1})


def test_names_of_other_libraries(model: fastq.Model) -> None:
    own = model.generate("a b", max_tokens=5, repeat_penalty=1.3, seed=1, stop=["q"]).tokens
    aliases: list[dict[str, Any]] = [
        {"max_new_tokens": 5, "repetition_penalty": 1.3, "stop_strings": ["q"]},
        {"n_predict": 5, "repetition_penalty": 1.3, "stop_sequences": "q"},
    ]
    for options in aliases:
        assert model.generate("a b", seed=1, **options).tokens == own
    with pytest.raises(TypeError, match="max_tokens and n_predict are the same option"):
        model.generate("a", max_tokens=1, n_predict=1)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "x"),
        ("temperature", None),
        ("top_k", 1.5),
        ("max_tokens", "x"),
        ("stop", 1),
        ("stop", [1]),
        ("stop_when", "x"),
        ("ignore_eos", 1.5),
        ("logit_bias", [1]),
        ("overflow", 1),
        ("speculate", 1),
        ("regex", 1),
        ("choices", "abc"),
        ("choices", [1]),
        ("grammar", 1),
    ],
)
def test_wrong_types_name_the_option(model: fastq.Model, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"\b{name}\b"):
        model.generate("a", **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_k", -1), ("seed", 1 << 64), ("repeat_last_n", -2), ("overflow", "x"), ("speculate", "x"), ("top_p", 2.0)],
)
def test_values_out_of_range_name_the_option(model: fastq.Model, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        model.generate("a", **{name: value})


def test_options_are_left_alone(model: fastq.Model) -> None:
    options: fastq.GenerateOptions = {"max_tokens": 2, "seed": 1}
    before = dict(options)
    model.generate("a", **options)
    model.chat([{"role": "user", "content": "a"}], **options)
    assert options == before


def test_samples(model: fastq.Model) -> None:
    """Each is the answer of its seed, and the prompt is computed once."""
    prompt = "word " * 40
    samples = model.generate(prompt, n=4, seed=5, max_tokens=8)
    assert [sample.seed for sample in samples] == [5, 6, 7, 8]
    for sample in samples:
        assert sample.tokens == model.generate(prompt, seed=sample.seed, max_tokens=8).tokens
    assert len({tuple(sample.tokens) for sample in samples}) > 1
    several = model.generate(["a", "b c"], n=2, seed=5, max_tokens=4)
    assert [[sample.tokens for sample in group] for group in several] == [
        [model.generate(prompt, seed=seed, max_tokens=4).tokens for seed in (5, 6)] for prompt in ("a", "b c")
    ]
    assert len(model.generate("a", n=1, max_tokens=1)) == 1
    assert len(model.chat([{"role": "user", "content": "a"}], n=3, max_tokens=1)) == 3
    for n in (0, -1, 1 << 70):
        with pytest.raises(ValueError, match=r"\bn\b"):
            model.generate("a", n=n)
    with pytest.raises(TypeError, match=r"\bn\b"):
        model.generate("a", n=1.5)  # type: ignore[call-overload]


def test_stop_when(model: fastq.Model) -> None:
    """The answer ends where the function says so, the same alone, in a batch and as a stream."""
    whole = model.generate("a b", seed=3, max_tokens=40, ignore_eos=True)
    wanted = len(whole.text) // 2

    def enough(text: str) -> bool:
        return len(text) >= wanted

    half = model.generate("a b", seed=3, max_tokens=40, ignore_eos=True, stop_when=enough)
    assert half.finish_reason == "stop"
    assert whole.text.startswith(half.text)
    assert wanted <= len(half.text) < len(whole.text)
    assert half.tokens == whole.tokens[: len(half.tokens)]
    batch = model.generate(["a b", "c"], seed=3, max_tokens=40, ignore_eos=True, stop_when=enough)
    assert batch[0].text == half.text
    stream = model.stream("a b", seed=3, max_tokens=40, ignore_eos=True, stop_when=enough)
    assert "".join(stream) == half.text
    assert stream.result.tokens == half.tokens
    never = model.generate("a b", seed=3, max_tokens=40, ignore_eos=True, stop_when=lambda _: False)
    assert never.tokens == whole.tokens


def test_exceptions_of_the_caller_come_back(model: fastq.Model) -> None:
    def fail(text: str) -> bool:
        raise LookupError(text)

    calls: list[Any] = [model.generate, lambda *a, **o: list(model.stream(*a, **o))]
    for call in calls:
        with pytest.raises(LookupError):
            call("a", max_tokens=8, ignore_eos=True, stop_when=fail)
    assert model.generate("a", max_tokens=1, ignore_eos=True).finish_reason == "length"


def test_speculation_changes_nothing(make: Make) -> None:
    path = make(format="Q8_0", **SMALL)
    options: dict[str, Any] = {"max_tokens": 60, "seed": 1, "ignore_eos": True}
    with fastq.Model(path, threads=2) as m:
        plain = m.generate("a b a b a b", **options)
        assert plain.drafted_tokens == 0
        guessed = m.generate("a b a b a b", speculate="ngram", **options)
        assert guessed.tokens == plain.tokens
        assert guessed.accepted_tokens <= guessed.drafted_tokens
        with fastq.Model(path, threads=2) as draft:
            asked = m.generate("a b a b a b", speculate=draft, **options)
        assert asked.tokens == plain.tokens
        # The draft is the model itself, and draws with the same numbers.
        assert asked.accepted_tokens == asked.drafted_tokens > 0
    with fastq.Model(path, threads=2, draft=path) as m:
        assert m.generate("a b a b a b", **options).accepted_tokens > 0
        assert m.generate("a b a b a b", speculate=None, **options).drafted_tokens == 0


def test_overflow(make: Make) -> None:
    with fastq.Model(make(format="Q8_0", **SMALL), context=64, threads=2) as m:
        prompt = [7] * 100
        with pytest.raises(fastq.ContextOverflowError):
            m.generate(prompt)
        answer = m.generate(prompt, overflow="truncate-middle", max_tokens=4, ignore_eos=True)
        assert answer.dropped_tokens > 36
        long = m.generate("a", overflow="shift", max_tokens=200, ignore_eos=True)
        assert (long.usage.completion_tokens, long.finish_reason) == (200, "length")


def test_score_is_what_the_logits_say(model: fastq.Model) -> None:
    ids = model.tokenize("one two three four " * 8)
    logits = model.logits(ids, all=True).astype(np.float64)
    expected = [row[token] - np.log(np.exp(row).sum()) for row, token in zip(logits, ids[1:], strict=False)]
    scores = model.score(ids)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert (scores == model.score("one two three four " * 8)).all()
    assert model.score(ids[:1]).shape == model.score([]).shape == (0,)
    for wrong in ([1, 1 << 20], [1 << 20, 1]):
        with pytest.raises(ValueError, match="vocabulary"):
            model.score(wrong)
    with pytest.raises(fastq.ContextOverflowError):
        model.score([1] * 1000)


def test_dropped_streams_are_cancelled(model: fastq.Model) -> None:
    """A stream that is left does not hold up others, and gives back its memory."""
    expected = model.generate("a", max_tokens=20, seed=1, ignore_eos=True).tokens
    for _ in range(20):
        next(model.stream("b c d", ignore_eos=True, max_tokens=200))
    with model.stream("b", ignore_eos=True, max_tokens=200) as stream:
        next(stream)
    assert stream.result.finish_reason == "cancelled"
    assert list(stream) == []
    stream = model.stream("b", ignore_eos=True, max_tokens=200)
    stream.close()
    stream.close()
    assert stream.result.tokens == []
    assert model.generate("a", max_tokens=20, seed=1, ignore_eos=True).tokens == expected


def test_cancel_while_another_thread_waits(make: Make) -> None:
    """It takes effect in the middle of a prompt."""
    path = make(format="Q8_0", **{**SMALL, "context": 30000})
    with fastq.Model(path, threads=2) as m:
        stream = m.stream([7] * 29000, max_tokens=1)
        pieces: list[str] = []
        thread = threading.Thread(target=lambda: pieces.extend(stream))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive(), "the prompt is too short for this machine"
        stream.cancel()
        thread.join(30)
        assert not thread.is_alive()
        assert pieces == []
        assert stream.result.finish_reason == "cancelled"


def test_annotations_can_be_resolved() -> None:
    assert (
        get_type_hints(fastq.GenerateOptions, localns={"Model": fastq.Model, "np": np, "NDArray": npt.NDArray})[
            "max_tokens"
        ]
        == int | None
    )
