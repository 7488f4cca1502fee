"""The two real models against what llama.cpp gave for them (`../shared/reference`, see its README)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq

Array = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def facts(shared: Path, real: tuple[str, Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shared / "reference" / f"{real[0]}.json").read_text())
    return found


def test_tokenizations(real: tuple[str, Path], facts: dict[str, Any]) -> None:
    """All texts give the same ids, and the ids give the texts back."""
    wrong: list[Any] = []
    with fastq.Model(real[1], context=64) as m:
        for case in facts["tokenizations"]:
            ids = m.tokenize(case["text"], bos=False, special=True)
            if ids != case["ids"]:
                wrong.append((case["text"], case["ids"], ids))
            # Neither model adds a space in front; SentencePiece has one spelling for a space and for U+2581.
            back, text = m.detokenize(ids, special=True), case["text"]
            if back != (text.replace("▁", " ") if "spm" in m.info.tokenizer else text):
                wrong.append((case["text"], "detokenized", back))
    assert not wrong, f"{len(wrong)} of {len(facts['tokenizations'])}: {wrong[:3]}"


def divergence(ours: Array, top_ids: npt.NDArray[np.int64], top: Array) -> Array:
    """KL divergence per position over the listed tokens and one bucket for the rest."""
    p, log_q = np.exp(top), np.take_along_axis(ours, top_ids, axis=1)
    rest_p = np.maximum(1 - p.sum(axis=1), 1e-12)
    rest_q = np.maximum(1 - np.exp(log_q).sum(axis=1), 1e-12)
    out: Array = (p * (top - log_q)).sum(axis=1) + rest_p * np.log(rest_p / rest_q)
    return out


def log_softmax(x: npt.NDArray[np.float32]) -> Array:
    shifted = x.astype(np.float64) - x.max(axis=1, keepdims=True)
    out: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return out


def test_divergence_and_perplexity(
    real: tuple[str, Path], shared: Path, facts: dict[str, Any], note: Callable[[str], None]
) -> None:
    data = np.load(shared / "reference" / f"{real[0]}.npz")
    first, ids, logs = int(data["first"]), data["top_ids"].astype(np.int64), data["top_logprobs"].astype(np.float64)
    divergences, surprises = [], []
    with fastq.Model(real[1], context=512) as m:
        metadata = fastq.inspect(real[1]).metadata
        for chunk, tokens in enumerate(data["tokens"]):
            if metadata.get("tokenizer.ggml.add_bos_token"):  # llama.cpp puts it into the place of the first token
                tokens[0] = metadata["tokenizer.ggml.bos_token_id"]
            raw = m.logits([int(t) for t in tokens], all=True)[first : first + ids.shape[1]]
            for at in range(0, len(raw), 32):  # a vocabulary of 262144 in float64 is large
                part = log_softmax(raw[at : at + 32])
                divergences.append(divergence(part, ids[chunk, at : at + 32], logs[chunk, at : at + 32]))
                following = np.asarray(tokens, np.int64)[first + 1 + at :][: len(part)]
                surprises.append(-part[np.arange(len(part)), following])
            del raw
    mean, ppl = float(np.concatenate(divergences).mean()), float(np.exp(np.concatenate(surprises).mean()))
    limit, wanted = facts["llama_cpp_mean_kld"], facts["ppl_float32_weights"]
    note(f"{real[0]}: mean KL divergence {mean:.6f} (llama.cpp {limit}), perplexity {ppl:.4f} (float32 {wanted:.4f})")
    assert mean <= limit
    assert abs(ppl / wanted - 1) <= 0.005
