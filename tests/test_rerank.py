"""Models that rank documents, beside their definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastq
import tiny
from conftest import SMALL
from reference.encoder import Encoder
from reference.reader import File
from reference.wordpiece import WordPiece

TEMPLATE = "Query: {query}\nDocument: {document} {other}\nAnswer:"
DOCUMENTS = ["the night light", "my people may look", "", "word " * 20, "my people may look"]
QUERY = "which {document} is it"


def rankers(path: Path, template: str | None, layers: list[tuple[str, int, int]], **options: Any) -> Path:
    """A tiny model with a head that ranks: matrices with biases."""
    shape = tiny.Tiny(**options)
    pairs, tensors = tiny.contents(shape)
    key = f"{shape.architecture}.pooling_type"
    pairs = [pair for pair in pairs if pair.key != key]
    pairs.append(tiny.Pair(key, tiny.U32, 4))
    if template is not None:
        pairs.append(tiny.Pair("tokenizer.chat_template.rerank", tiny.STRING, template))
    layout = tiny.Layout(shape.resolved(), 0)
    for name, rows, k in layers:
        layout.matrix(name, rows, k, form="F32")
        layout.bias(name, rows)
    with open(path, "wb") as file:
        tiny.write_file(file, pairs, tensors + list(enumerate(layout.tensors, len(tensors))), shape.seed)
    return path


def head(path: Path, hidden: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What the tensors of the file make of a hidden state, in float64."""
    tensors, x = File(path).tensors, hidden.astype(np.float64)
    if "cls.weight" in tensors:
        x = np.tanh(tensors["cls.weight"].rows() @ x + tensors["cls.bias"].rows()[0])
    result: np.ndarray[Any, Any] = tensors["cls.output.weight"].rows() @ x + tensors["cls.output.bias"].rows()[0]
    return result


def test_a_language_model_says_yes_or_no(tmp_path: Path) -> None:
    path = rankers(tmp_path / "a.gguf", TEMPLATE, [("cls.output", 2, 64)], architecture="qwen3", **SMALL)
    with fastq.Model(path, threads=2) as m:
        found = m.rerank(QUERY, DOCUMENTS)
        for result in found:
            # A query that looks like a part of the template is text.
            text = f"Query: {QUERY}\nDocument: {DOCUMENTS[result.index]} {{other}}\nAnswer:"
            yes, no = head(path, m.embed(text, pooling="last", normalize=False))
            assert result.score == pytest.approx(1 / (1 + np.exp(no - yes)), abs=1e-6)
        assert [result.score for result in found] == sorted((result.score for result in found), reverse=True)
        assert sorted(result.index for result in found) == list(range(len(DOCUMENTS)))
        order = [result.index for result in found]
        assert order.index(1) + 1 == order.index(4), "of equal documents the earlier comes first"
        assert m.rerank(QUERY, []) == []
        # A score depends on its document only.
        assert m.rerank(QUERY, DOCUMENTS[:1])[0].score == next(r.score for r in found if r.index == 0)
        with pytest.raises(fastq.ContextOverflowError):
            m.rerank(QUERY, ["word " * 500])


def test_an_encoder_reads_two_texts(tmp_path: Path) -> None:
    options: dict[str, Any] = {"architecture": "bert", "width": 120, "heads": 3, "kv_heads": 3, "ffn": 136}
    heads = [("cls", 120, 120), ("cls.output", 1, 120)]
    path = rankers(tmp_path / "a.gguf", None, heads, token_types=1, **options)
    encoder, tokenizer = Encoder(path, cache=np.float16), WordPiece(File(path))
    with fastq.Model(path, threads=2) as m:
        for result in m.rerank("which is it", DOCUMENTS):
            tokens = [*tokenizer.encode("which is it"), *tokenizer.encode(DOCUMENTS[result.index])[1:]]
            assert result.score == pytest.approx(head(path, encoder.hidden(tokens)[0])[0], abs=1e-4)
    path = rankers(tmp_path / "b.gguf", None, heads, token_types=2, **options)
    with fastq.Model(path) as m, pytest.raises(fastq.UnsupportedModelError, match="2 token types"):
        m.rerank("a", ["b"])


def test_what_is_missing_is_named(model: fastq.Model, tmp_path: Path) -> None:
    qwen: dict[str, Any] = {"architecture": "qwen3", **SMALL}
    with pytest.raises(fastq.UnsupportedModelError, match=r"llama\.pooling_type 4"):
        model.rerank("a", ["b"])
    cases: list[tuple[str | None, list[tuple[str, int, int]], type[Exception], str]] = [
        (TEMPLATE, [], fastq.UnsupportedModelError, r"cls\.output\.weight"),
        (None, [("cls.output", 2, 64)], fastq.UnsupportedModelError, r"chat_template\.rerank"),
        (TEMPLATE, [("cls.output", 2, 32)], fastq.ModelFileError, "rows of 64"),
        (TEMPLATE, [("cls.output", 2000, 64)], fastq.ModelFileError, "at most 1024"),
        (TEMPLATE, [("cls.output", 2, 64), ("cls.norm", 1, 64)], fastq.UnsupportedModelError, r"cls\.norm"),
    ]
    for i, (template, heads, error, what) in enumerate(cases):
        with (
            fastq.Model(rankers(tmp_path / f"{i}.gguf", template, heads, **qwen)) as m,
            pytest.raises(error, match=what),
        ):
            m.rerank("a", ["b"])
