"""Every kind of tokenizer gives the tokens of llama.cpp 0.3.36 (WordPiece: of BERT), by the hashes that
`peers/tokenizers.py` has stored.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tokenizer_kinds as kinds
from fastq import Model, UnsupportedModelError

REFERENCE: dict[str, str] = json.loads(kinds.REFERENCE.read_text())


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_tokens_are_those_of_the_reference(kind: str, tmp_path: Path) -> None:
    model = Model(kinds.write(tmp_path / "model.gguf", kind))
    found = kinds.hashes(model.tokenize(text) for text in kinds.TEXTS)
    assert kinds.differing(found, REFERENCE[kind]) == []


def test_every_kind_has_a_reference() -> None:
    assert set(REFERENCE) == set(kinds.KINDS)


@pytest.mark.parametrize("kind", ["gpt2/qwen2", "gpt2/sarvam-moe", "t5/without normaliser"])
def test_tokens_give_the_text_back(kind: str, tmp_path: Path) -> None:
    model = Model(kinds.write(tmp_path / "model.gguf", kind))
    for text in ("Hello world", "a\n\nb", "x 12"):
        assert model.detokenize(model.tokenize(text)) == text


def test_an_unknown_pre_tokenizer_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    path = kinds.write(tmp_path / "model.gguf", "gpt2/qwen2")
    path.write_bytes(path.read_bytes().replace(b"qwen2", b"qwen9"))
    with pytest.raises(UnsupportedModelError, match=r"must be one of default .* superbpe .*, found \"qwen9\""):
        Model(path)
