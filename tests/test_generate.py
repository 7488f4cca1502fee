"""Generation: what is drawn, where it ends, and that every way of asking gives the same answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
from conftest import SMALL, Make
from reference import sampler

PROMPT = [300, 310, 320, 330]
GREEDY: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True}
# Everything off that cuts or reshapes the distribution.
PLAIN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


class TestGreedy:
    def test_is_the_largest_logit(self, model: fastq.Model) -> None:
        ids = list(PROMPT)
        for token in model.generate(PROMPT, max_tokens=12, **GREEDY).tokens:
            assert token == int(model.logits(ids).argmax())
            ids.append(token)
        assert len(ids) == 16

    def test_is_repeatable(self, small: Path) -> None:
        found = set()
        for _ in range(3):
            with fastq.Model(small) as m:
                found.add(tuple(m.generate(PROMPT, max_tokens=20, **GREEDY).tokens))
        assert len(found) == 1


class TestSeed:
    def test_decides(self, model: fastq.Model) -> None:
        def run(seed: int) -> list[int]:
            tokens: list[int] = model.generate(PROMPT, max_tokens=16, seed=seed, ignore_eos=True, **PLAIN).tokens
            return tokens

        assert run(1) == run(1)
        assert len({tuple(run(seed)) for seed in range(5)}) == 5

    def test_none_is_random_and_reported(self, model: fastq.Model) -> None:
        first, second = (model.generate(PROMPT, max_tokens=16, ignore_eos=True, **PLAIN) for _ in range(2))
        assert first.tokens != second.tokens
        again = model.generate(PROMPT, max_tokens=16, ignore_eos=True, seed=first.seed, **PLAIN)
        assert again.tokens == first.tokens

    def test_of_the_model_is_the_default(self, small: Path) -> None:
        with fastq.Model(small, seed=5) as m:
            ours = m.generate(PROMPT, max_tokens=8, **PLAIN).tokens
            assert ours == m.generate(PROMPT, max_tokens=8, seed=5, **PLAIN).tokens
            assert ours == m.generate(PROMPT, max_tokens=8, **PLAIN).tokens


REPEATED = [300, 310, 300, 310, 310, 320]
# A `logit_bias` here is what the logit shall be beside the largest one, so that it matters for every model.
STAGES: dict[str, dict[str, Any]] = {
    "temperature 1": {},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 2": {"temperature": 2.0},
    "top-k": {"top_k": 5},
    "top-p": {"top_p": 0.6},
    "min-p": {"min_p": 0.1},
    "typical": {"typical_p": 0.5},
    "logit bias": {"logit_bias": {300: 0.0, 301: -50.0, 302: -1.0}},
    "repeat penalty": {"repeat_penalty": 3.0, "top_k": 30},
    "presence and frequency": {"presence_penalty": 1.0, "frequency_penalty": 0.7, "logit_bias": {310: 1.0, 300: 1.0}},
    "penalties of the last two": {"presence_penalty": 5.0, "repeat_last_n": 2, "logit_bias": {310: 1.0, 300: 1.0}},
    "all at once": {"temperature": 0.8, "top_k": 40, "typical_p": 0.95, "top_p": 0.9, "min_p": 0.02,
                    "repeat_penalty": 1.3, "presence_penalty": 0.2, "frequency_penalty": 0.1, "logit_bias": {310: 1.0}},
}  # fmt: skip


def end_tokens(model: fastq.Model) -> list[int]:
    """The control tokens that end an answer."""
    types = fastq.inspect(model.info.path).metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in enumerate(types) if kind == 3]
    surely: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0}
    found = [t for t in control if model.generate(PROMPT, logit_bias={t: 1e4}, **surely).finish_reason == "stop"]
    assert 0 < len(found) < len(control)
    return found


@pytest.mark.parametrize("name", STAGES)
def test_distribution(name: str, model: fastq.Model) -> None:
    """1500 first tokens with seeds 0, 1, 2, ... against the probabilities of the reference stages."""
    options, logits, ends = PLAIN | STAGES[name], model.logits(REPEATED), end_tokens(model)
    if "logit_bias" in options:
        bias = {t: float(logits.max() - logits[t]) + level for t, level in options["logit_bias"].items()}
        options = options | {"logit_bias": bias}

    def expect(options: dict[str, Any]) -> npt.NDArray[np.float64]:
        """End tokens are counted as the first of them, because an answer does not tell them apart."""
        p = sampler.distribution(logits, REPEATED, **options)
        p[ends[0]], p[ends[1:]] = p[ends].sum(), 0
        return p

    expected = expect(options)
    counts = np.zeros(len(expected), np.int64)
    for seed in range(1500):
        tokens = model.generate(REPEATED, max_tokens=1, seed=seed, **options).tokens
        counts[tokens[0] if tokens else ends[0]] += 1
    # Fixed seeds: the result never changes. Five standard deviations are passed once in millions by a right sampler.
    assert sampler.chi_square(counts, expected) < 5
    # And the test can fail: the distribution without the stage is far away.
    if name != "temperature 1":
        assert sampler.chi_square(counts, expect(PLAIN)) > 5


def test_positions_draw_independently(model: fastq.Model) -> None:
    """One seed is no single random number: from a flat distribution one answer has tokens of all kinds."""
    tokens = model.generate(PROMPT, max_tokens=100, seed=1, ignore_eos=True, **PLAIN | {"temperature": 1e4}).tokens
    assert len(set(tokens)) > 70


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("top_p", 0.0),
            ("top_p", 1.1), ("top_p", float("nan")), ("min_p", -0.1), ("min_p", 1.1), ("typical_p", 0.0),
            ("typical_p", 2.0), ("top_k", -1), ("top_k", 2**70),
            ("repeat_last_n", -2), ("seed", -1), ("repeat_penalty", 0.0), ("repeat_penalty", float("nan")),
            ("presence_penalty", float("inf")), ("frequency_penalty", float("nan")), ("max_tokens", -1),
            ("logit_bias", {10**9: 1.0}), ("logit_bias", {-1: 1.0}), ("logit_bias", {3: float("nan")}),
        ],
    )  # fmt: skip
    def test_out_of_range_is_named(self, model: fastq.Model, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=name):
            model.generate(PROMPT, **{name: value})

    @pytest.mark.parametrize("prompt", [None, 3, 2.5, b"bytes", [1.5], [None], [[1], "a"], {"a": 1}])
    def test_wrong_type_of_prompt(self, model: fastq.Model, prompt: Any) -> None:
        with pytest.raises(TypeError):
            model.generate(prompt)

    @pytest.mark.parametrize("prompt", [[10**6], [-1], [2**40]])
    def test_tokens_outside_the_vocabulary(self, model: fastq.Model, prompt: list[int]) -> None:
        for call in (model.generate, model.stream, model.logits, model.detokenize):
            with pytest.raises(ValueError, match="token"):
                call(prompt)

    def test_penalties_of_all(self, model: fastq.Model) -> None:
        """-1 looks at every token; 200 of them are more than the default of 64."""
        prompt = [310] + [320] * 200
        options: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "presence_penalty": 1e4}
        biased: dict[str, Any] = options | {"logit_bias": {310: 5e3}}
        assert model.generate(prompt, **biased).tokens == [310]
        assert model.generate(prompt, repeat_last_n=-1, **biased).tokens != [310]

    def test_options_are_keywords(self, model: fastq.Model) -> None:
        with pytest.raises(TypeError):
            model.generate("a", 5)  # type: ignore[call-overload]
        with pytest.raises(TypeError):
            model.generate("a", max_token=5)  # type: ignore[call-overload]


class TestEnd:
    def test_length(self, model: fastq.Model) -> None:
        r = model.generate(PROMPT, max_tokens=7, **GREEDY)
        assert (r.finish_reason, len(r.tokens), r.usage.completion_tokens) == ("length", 7, 7)
        assert r.usage.prompt_tokens == 4
        assert r.usage.total_tokens == 11

    def test_no_tokens(self, model: fastq.Model) -> None:
        r = model.generate(PROMPT, max_tokens=0)
        assert (r.text, r.tokens, r.finish_reason) == ("", [], "length")

    def test_end_token(self, model: fastq.Model) -> None:
        eos = fastq.inspect(model.info.path).metadata["tokenizer.ggml.eos_token_id"]
        sure = {eos: 1000.0}
        r = model.generate(PROMPT, max_tokens=7, logit_bias=sure, seed=1)
        assert (r.text, r.finish_reason) == ("", "stop")
        assert r.usage.completion_tokens <= 1
        r = model.generate(PROMPT, max_tokens=7, logit_bias=sure, seed=1, ignore_eos=True)
        assert r.finish_reason == "length"

    def test_context_is_full(self, small: Path) -> None:
        with fastq.Model(small, context=32) as m:
            r = m.generate(PROMPT, max_tokens=None, **GREEDY)
            assert r.finish_reason == "length"
            assert 27 <= len(r.tokens) <= 29
            with pytest.raises(fastq.ContextOverflowError, match="32"):
                m.generate([300] * 40, max_tokens=1)
            with pytest.raises(fastq.ContextOverflowError, match="32"):
                m.logits([300] * 33)
            assert m.logits([300] * 32).ndim == 1

    def test_stop_strings_end_the_text_and_never_show(self, model: fastq.Model) -> None:
        whole = model.generate(PROMPT, max_tokens=40, seed=2, ignore_eos=True, **PLAIN).text
        assert len(whole) > 20
        cuts = [whole[a : a + n] for a in range(1, len(whole) - 6, 3) for n in (1, 2, 5)]
        for stop in cuts:
            options: dict[str, Any] = {"max_tokens": 40, "seed": 2, "ignore_eos": True, "stop": ["never in it", stop]}
            r = model.generate(PROMPT, **options, **PLAIN)
            assert r.text == whole[: whole.index(stop)]
            assert r.finish_reason == "stop"
            stream = model.stream(PROMPT, **options, **PLAIN)
            sent = ""
            for piece in stream:
                sent += piece
                assert r.text.startswith(sent), "a part of the stop string was sent"
            assert sent == r.text

    def test_stop_that_does_not_come(self, model: fastq.Model) -> None:
        plain = model.generate(PROMPT, max_tokens=20, **GREEDY)
        held = model.generate(PROMPT, max_tokens=20, stop=plain.text[-3:] + "\0", **GREEDY)
        assert held.text == plain.text, "what was held back for a stop string is sent in the end"
        assert held.finish_reason == "length"

    @pytest.mark.parametrize("stop", ["", ["a", ""]])
    def test_empty_stop(self, model: fastq.Model, stop: Any) -> None:
        with pytest.raises(ValueError, match="stop"):
            model.generate(PROMPT, stop=stop)


@pytest.fixture(scope="module", params=["bpe", "spm", "gemma"])
def any_vocabulary(request: pytest.FixtureRequest, make: Make) -> Path:
    """A small model with each kind of vocabulary."""
    if request.param == "gemma":
        return make(architecture="gemma3", **SMALL | {"layers": 6})
    return make(vocabulary=request.param, **SMALL)


class TestText:
    def test_pieces_join_to_the_text(self, any_vocabulary: Path) -> None:
        """Random tokens are mostly broken UTF-8; pieces are valid all the same and lose nothing."""
        with fastq.Model(any_vocabulary) as m:
            for seed in range(12):
                options: dict[str, Any] = {
                    "max_tokens": 40,
                    "seed": seed,
                    "ignore_eos": True,
                    **PLAIN,
                    "temperature": 3.0,
                }
                stream = m.stream(PROMPT, **options)
                pieces = list(stream)
                for piece in pieces:
                    piece.encode()  # a lone surrogate would raise
                r = m.generate(PROMPT, **options)
                assert "".join(pieces) == r.text == stream.result.text
                assert stream.result.tokens == r.tokens

    def test_whole_characters_arrive_whole(self, any_vocabulary: Path) -> None:
        """Characters forced byte by byte come out as characters, in pieces that are never broken."""
        text = "zażółć 日本 🙂 ok"
        with fastq.Model(any_vocabulary) as m:
            ids = m.tokenize(text, bos=False)
            assert m.detokenize(ids).removeprefix(" ") == text

    @pytest.mark.parametrize(
        "text", ["", " ", "\n", "a", "the word", "  two", "é中🙂\u200d", "\0", "a" * 300, "<|im_end|>"]
    )
    def test_tokenize_and_back(self, any_vocabulary: Path, text: str) -> None:
        with fastq.Model(any_vocabulary) as m:
            ids = m.tokenize(text, bos=False, special=False)
            assert m.detokenize(ids, special=True).removeprefix(" ") == text.removeprefix(" ")

    def test_special_tokens(self, any_vocabulary: Path) -> None:
        with fastq.Model(any_vocabulary) as m:
            metadata = fastq.inspect(any_vocabulary).metadata
            last = metadata["tokenizer.ggml.tokens"][-1]
            assert m.tokenize(last, bos=False)[-1] == len(metadata["tokenizer.ggml.tokens"]) - 1
            assert len(m.tokenize(last, bos=False, special=False)) > 1
            assert m.tokenize("a")[0] == metadata["tokenizer.ggml.bos_token_id"]
            assert m.tokenize("a")[1:] == m.tokenize("a", bos=False)
            bos = [int(metadata["tokenizer.ggml.bos_token_id"])]
            assert m.detokenize(bos) == ""
            assert m.detokenize(bos, special=True) != ""


class TestStream:
    def test_cancel(self, model: fastq.Model) -> None:
        stream = model.stream(PROMPT, max_tokens=200, **GREEDY)
        sent = [next(stream), next(stream)]
        stream.cancel()
        sent += stream
        assert stream.result.finish_reason == "cancelled"
        assert stream.result.text == "".join(sent)
        assert len(stream.result.tokens) < 20
        assert model.generate(PROMPT, max_tokens=3, **GREEDY).finish_reason == "length"

    def test_given_up(self, model: fastq.Model) -> None:
        """A stream that nobody reads on costs nothing and harms nobody."""
        for _ in range(20):
            next(model.stream(PROMPT, max_tokens=200, **GREEDY))
        assert len(model.generate(PROMPT, max_tokens=5, **GREEDY).tokens) == 5

    def test_two_at_once(self, model: fastq.Model) -> None:
        a, b = (model.stream([t], max_tokens=20, **GREEDY) for t in (300, 400))
        mixed = ["", ""]
        for x, y in zip(a, b, strict=False):
            mixed[0] += x
            mixed[1] += y
        mixed[0] += "".join(a)
        mixed[1] += "".join(b)
        assert mixed[0].startswith(model.generate([300], max_tokens=20, **GREEDY).text[:5])
        assert b.result.text == model.generate([400], max_tokens=20, **GREEDY).text


class TestBatch:
    def test_equals_single(self, model: fastq.Model) -> None:
        prompts: list[list[int]] = [[300 + i] * (1 + 5 * i) for i in range(6)]
        options: dict[str, Any] = {"max_tokens": 15, "seed": 9, **PLAIN}
        together = model.generate(prompts, **options)
        for prompt, r in zip(prompts, together, strict=True):
            single = model.generate(prompt, **options)
            assert (r.text, r.tokens, r.finish_reason) == (single.text, single.tokens, single.finish_reason)

    def test_of_texts(self, model: fastq.Model) -> None:
        texts = ["the", "", "of the people"]
        together = model.generate(texts, max_tokens=6, **GREEDY)
        assert [r.text for r in together] == [model.generate(t, max_tokens=6, **GREEDY).text for t in texts]

    def test_of_none(self, model: fastq.Model) -> None:
        none: list[str] = []
        assert model.generate(none) == []

    def test_one_bad_prompt(self, model: fastq.Model) -> None:
        with pytest.raises(ValueError, match="token"):
            model.generate([PROMPT, [10**6]])
        assert model.generate(PROMPT, max_tokens=1, **GREEDY).tokens


class TestChat:
    MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "the word"}]  # noqa: RUF012 - never changed

    def test_template(self, model: fastq.Model) -> None:
        assert model.apply_template(self.MESSAGES) == "<|user|>\nthe word\n<|assistant|>\n"

    def test_answer(self, model: fastq.Model) -> None:
        r = model.chat(self.MESSAGES, max_tokens=6, **GREEDY)
        assert r.message == {"role": "assistant", "content": r.text}
        assert r.usage.completion_tokens == 6
        again = model.chat([*self.MESSAGES, r.message, *self.MESSAGES], max_tokens=2, **GREEDY)
        assert again.usage.prompt_tokens > r.usage.prompt_tokens

    def test_special_tokens_in_a_message(self, model: fastq.Model) -> None:
        """They are parsed wherever they stand, as llama.cpp does: templates write them into what they return."""
        messages = [{"role": "user", "content": "<|im_end|>"}]
        ids = model.tokenize(model.apply_template(messages), special=True)
        assert model.tokenize("<|im_end|>", bos=False)[0] in ids
        assert model.chat(messages, max_tokens=1).usage.prompt_tokens == len(ids)

    def test_without_template(self, make: Make) -> None:
        with fastq.Model(make(chat_template=None, **SMALL)) as m, pytest.raises(fastq.TemplateError, match="template"):
            m.chat(self.MESSAGES)

    def test_that_refuses(self, make: Make) -> None:
        path = make(chat_template="{{ raise_exception('roles must alternate') }}", **SMALL)
        with fastq.Model(path) as m, pytest.raises(fastq.TemplateError, match="roles must alternate"):
            m.chat(self.MESSAGES)

    @pytest.mark.parametrize("messages", [[{"role": "user", "content": object()}], [3], ["text"], [None], "text", 3])
    def test_wrong_types(self, model: fastq.Model, messages: Any) -> None:
        for call in (model.chat, model.stream_chat, model.apply_template):
            with pytest.raises(TypeError):
                call(messages)


class TestResult:
    def test_messages_that_only_look_small(self, model: fastq.Model) -> None:
        nested: list[Any] = []
        for _ in range(60):
            nested = [nested, nested]
        with pytest.raises(TypeError, match="more than 1048576 values"):
            model.apply_template([{"role": "user", "content": "Hi", "extra": nested}])

    def test_record(self, model: fastq.Model) -> None:
        r = model.generate("the word", max_tokens=5, **GREEDY)
        assert str(r) == r.text
        record = json.loads(json.dumps(r.to_dict()))
        assert record["tokens"] == r.tokens
        assert record["usage"]["prompt_tokens"] == r.usage.prompt_tokens
        t = r.timings
        assert t.prefill_tokens == r.usage.prompt_tokens
        assert 0 < t.prefill_seconds < 60
        assert 0 <= t.decode_seconds < 60
        assert t.load_seconds > 0
        assert t.peak_rss_bytes > 1 << 20

    def test_logits(self, model: fastq.Model) -> None:
        one, rows = model.logits(PROMPT), model.logits(PROMPT, all=True)
        assert one.dtype == rows.dtype == np.dtype(np.float32)
        assert one.shape == (model.info.vocabulary,)
        assert rows.shape == (4, model.info.vocabulary)
        assert np.array_equal(one, rows[-1])
        with pytest.raises(ValueError, match=r"\S"):
            model.logits([])

    def test_damaged_weights_are_an_error(self, small: Path, tmp_path: Path) -> None:
        """NaN logits end in an exception, not in token 0."""
        last = fastq.inspect(small).tensors[-1]
        assert last.name == "output_norm.weight"
        raw = bytearray(small.read_bytes())
        raw[-last.bytes : -last.bytes + 4] = np.float32("nan").tobytes()
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(raw)
        with fastq.Model(broken) as m, pytest.raises(fastq.FastqError, match=r"(?i)nan|finite"):
            m.generate(PROMPT, max_tokens=4)


class TestTexts:
    """What only a real model can show."""

    def test_knows_something(self, smollm2: Path) -> None:
        with fastq.Model(smollm2, context=256) as m:
            assert "Paris" in m.generate("The capital of France is", max_tokens=8, temperature=0.0).text
            r = m.chat([{"role": "user", "content": "What is 2+2? Answer briefly."}], max_tokens=40, temperature=0.0)
            assert "4" in r.text
            assert r.finish_reason in ("stop", "length")

    def test_template_of_smollm2(self, smollm2: Path) -> None:
        with fastq.Model(smollm2, context=64) as m:
            assert m.apply_template([{"role": "user", "content": "Hi"}]) == (
                "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
                "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
            )
