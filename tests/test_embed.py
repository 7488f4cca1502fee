"""Embeddings as a user makes them: encoders beside their twins and PyTorch, decoders, options and errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import minilm as real
from conftest import Make
from reference.encoder import Encoder
from reference.forward import Twin
from reference.reader import File
from reference.wordpiece import WordPiece
from shapes import ENCODERS

TEXTS = ["the night light", "my people may look", "word " * 60, "", "day 日本 ж"]


def cosine(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("name", ENCODERS)
def test_tiny_encoders_beside_their_twins(name: str, make: Make) -> None:
    path = make(**ENCODERS[name])
    encoder, tokenizer = Encoder(path, cache=np.float16), WordPiece(File(path))
    with fastq.Model(path) as m:
        found = m.embed(TEXTS, normalize=False)
        assert found.shape == (len(TEXTS), encoder.width)
        assert found.dtype == np.float32
        for text, vector in zip(TEXTS, found, strict=True):
            wanted = encoder.pooled(tokenizer.encode(text))
            assert np.abs(vector - wanted).max() <= 1e-4 * np.abs(wanted).max(), text


def test_a_real_encoder_beside_pytorch(minilm: Path, note: Any) -> None:
    references = list(real.references())
    with fastq.Model(minilm) as m:
        for reference in references:
            assert m.tokenize(reference.sentence) == list(reference.ids), reference.sentence
        found = m.embed([reference.sentence for reference in references])
    cosines = [cosine(a, b.embedding) for a, b in zip(found, references, strict=True)]
    note(f"all-MiniLM-L6-v2, {len(cosines)} sentences: cosine with PyTorch at least {min(cosines):.6f}")
    assert min(cosines) >= 0.999
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_vector_depends_on_its_text_only(architecture: str, make: Make) -> None:
    path = make(architecture=architecture, format="Q8_0")
    vectors = []
    for options in ({"threads": 1, "prefill_chunk": 3}, {"threads": 2}, {"level": "scalar"}):
        with fastq.Model(path, **options) as m:
            together, apart = m.embed(TEXTS), np.stack([m.embed(text) for text in TEXTS])
            assert np.array_equal(together, apart)
            vectors.append(together)
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[0], vectors[2])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_a_decoder_gives_vectors_too(pooling: Any, make: Make) -> None:
    path = make()
    twin = Twin(path, cache=np.float16)
    with fastq.Model(path) as m:
        ids = m.tokenize(TEXTS[0])
        rows = twin.hidden(ids)
        wanted = {"mean": rows.mean(axis=0), "cls": rows[0], "last": rows[-1]}[pooling]
        assert cosine(m.embed(TEXTS[0], pooling=pooling), wanted) > 1 - 1e-6


def test_what_cannot_be_embedded_is_said(make: Make) -> None:
    path = make(**ENCODERS["bert"])
    with fastq.Model(path, context=16) as m:
        long = "the day " * 20
        with pytest.raises(fastq.ContextOverflowError, match="a text of 42 tokens exceeds the context of 16"):
            m.embed(long)
        # The token that ends a text stays.
        ids = m.tokenize(long)
        shortened = m.embed([long, m.detokenize(ids[1:15])], truncate=True)
        assert cosine(shortened[0], shortened[1]) > 1 - 1e-6
        with pytest.raises(ValueError, match='pooling must be one of "mean", "cls", "last", found "max"'):
            m.embed("a", pooling="max")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a bert model has no logits"):
            m.generate("the day", max_tokens=1)
        assert m.embed([]).shape == (0, m.info.width)
    with pytest.raises(ValueError, match="context must be at most 512, the positions of the model, found 513"):
        fastq.Model(path, context=513)


def test_from_the_command_line(make: Make) -> None:
    path = make(**ENCODERS["bert"])
    command = [sys.executable, "-m", "fastq", "embed", str(path)]
    lines = subprocess.run([*command, *TEXTS[:2]], capture_output=True, text=True, check=True).stdout.splitlines()
    piped = subprocess.run(command, input="\n".join(TEXTS[:2]), capture_output=True, text=True, check=True).stdout
    assert piped.splitlines() == lines
    with fastq.Model(path) as m:
        for text, line in zip(TEXTS[:2], lines, strict=True):
            record = json.loads(line)
            assert record["text"] == text
            assert np.array_equal(np.float32(record["embedding"]), m.embed(text))
