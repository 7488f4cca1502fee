"""The twins of encoders: what each part of a tiny one matters, and a real one against PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import minilm as real
from conftest import Make
from reference.encoder import Encoder
from reference.forward import RULES
from reference.reader import File
from reference.wordpiece import WordPiece
from shapes import ENCODERS

Array = npt.NDArray[np.float64]

TOKENS = [2, *range(7, 39), 3]


def cosine(a: Array, b: npt.NDArray[Any]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_the_real_encoder_is_computed_as_by_pytorch(minilm: Path) -> None:
    """It differs by weights in half precision, and by GELU in the form with tanh."""
    encoder = Encoder(minilm)
    for reference in real.references():
        assert cosine(encoder.pooled(reference.ids), reference.embedding) > 0.99999, reference.sentence


def test_the_real_encoder_reads_the_same_tokens(minilm: Path) -> None:
    tokenizer = WordPiece(File(minilm))
    for reference in real.references():
        assert tokenizer.encode(reference.sentence) == reference.ids, reference.sentence


@pytest.mark.parametrize("name", ENCODERS)
def test_every_token_sees_the_others(name: str, make: Make) -> None:
    encoder = Encoder(make(**ENCODERS[name]))
    rows, others = encoder.hidden(TOKENS), encoder.hidden([*TOKENS[:-1], 4])
    assert np.abs(rows - others).max(axis=1).min() > 1e-4


@pytest.mark.parametrize("name", ENCODERS)
def test_positions_matter(name: str, make: Make) -> None:
    encoder = Encoder(make(**ENCODERS[name]))
    turned = encoder.hidden(TOKENS[::-1])[::-1]
    assert np.abs(encoder.hidden(TOKENS) - turned).max() > 0.01


def test_rope_is_for_nomic_bert_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bert", "nomic-bert"):
        encoder = Encoder(make(**ENCODERS[name]))
        rows, rules = encoder.hidden(TOKENS), RULES[name]
        monkeypatch.setattr(encoder, "rules", dataclasses.replace(rules, rope_every=1 - rules.rope_every))
        assert np.abs(rows - encoder.hidden(TOKENS)).max() > 0.01


def test_pooling(make: Make) -> None:
    def pooled(pooling: str) -> Array:
        return Encoder(make(**ENCODERS["bert"], pooling=pooling)).pooled(TOKENS)

    rows = Encoder(make(**ENCODERS["bert"])).hidden(TOKENS)
    assert np.array_equal(pooled("mean"), rows.mean(axis=0))
    assert np.array_equal(pooled("cls"), rows[0])
    assert np.array_equal(pooled("last"), rows[-1])
    with pytest.raises(ValueError, match="without pooling"):
        pooled("none")


@pytest.mark.parametrize("lowercase", [True, False])
def test_wordpiece_on_the_tiny_vocabulary(lowercase: bool, make: Make) -> None:
    file = File(make(**ENCODERS["bert"]))
    file.metadata["tokenizer.ggml.normalizer.lowercase"] = lowercase
    tokenizer, tokens = WordPiece(file), file.metadata["tokenizer.ggml.tokens"]

    def pieces(text: str) -> list[str]:
        return [tokens[n] for n in tokenizer.encode(text)]

    unknown = ["[UNK]"]
    assert pieces("") == ["[CLS]", "[SEP]"]
    assert pieces(" the\twater, my 中文 day") == ["[CLS]", "▁the", "▁water", "▁,", "▁my", "▁中", "▁文", "▁day", "[SEP]"]
    assert pieces("waters")[1:-1] == ["▁water", "s"]
    assert pieces("The DAY") == ["[CLS]", *(["▁the", "▁day"] if lowercase else unknown * 2), "[SEP]"]
    assert pieces("dáy")[1:-1] == (["▁day"] if lowercase else unknown)
    assert pieces("day\u0439 day\u0000\u200b")[1:-1] == [*unknown, "▁day"]
    assert pieces("a" * 101 + " " + "a" * 100)[1:-1] == [*unknown, "▁a", *"a" * 99]
