"""Calibration and evaluation, against what llama.cpp makes of the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastq
import gguf

TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind. " * 60


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_perplexity_is_that_of_llama_cpp(name: str, shared: Path, request: pytest.FixtureRequest) -> None:
    # llama.cpp quantizes activations in another way, so the figures differ in the third digit.
    reference = json.loads((shared / "reference" / f"{name}.json").read_text())
    model = fastq.Model(request.getfixturevalue(name), context=512)
    found = fastq.perplexity(model, shared / "text" / "eval.txt", chunks=1)
    assert (found.chunks, found.context, found.tokens) == (1, 512, 255)
    tokens = np.load(shared / "reference" / f"{name}.npz")
    expected = float(np.exp(tokens["nll"][0].mean()))
    assert abs(found.ppl / expected - 1) < 0.02, (found, expected, reference.keys())


def test_calibration_has_every_matrix(smollm2: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.imatrix.gguf"
    seen: list[tuple[str, int, int]] = []
    result = fastq.calibrate(smollm2, [TEXT], out, chunk_size=64, chunks=2, progress=lambda *step: seen.append(step))
    assert (result.tensors, result.chunks, result.path) == (210, 2, str(out))
    assert seen[-1][1] == seen[-1][2] > 0
    reader = gguf.GGUFReader(out)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert tensors["blk.0.attn_q.weight.counts"].tolist() == [128.0]
    queries, keys = (tensors[f"blk.7.attn_{kind}.weight.in_sum2"] for kind in "qk")
    assert np.array_equal(queries, keys)
    assert (queries > 0).all()
    assert reader.fields["general.type"].contents() == "imatrix"
    with_output = fastq.calibrate(smollm2, [TEXT], out, chunk_size=64, chunks=2, process_output=True)
    assert with_output.tensors == 211


def test_conversations_are_written_by_the_template(smollm2: Path, tmp_path: Path) -> None:
    line = json.dumps({"messages": [{"role": "user", "content": TEXT}, {"role": "assistant", "content": TEXT}]})
    out = tmp_path / "m.imatrix.gguf"
    assert fastq.calibrate(smollm2, [line], out, chunk_size=64, chunks=1, chat=True).chunks == 1
    with pytest.raises(ValueError, match="line 2 of the conversations is not JSON"):
        fastq.calibrate(smollm2, [line + "\nhello"], out, chunk_size=64, chat=True)


def test_divergence_of_a_model_from_itself_and_another(smollm2: Path) -> None:
    model = fastq.Model(smollm2, context=64)
    same = fastq.kl_divergence(model, model, TEXT, context=64, chunks=2)
    assert abs(same.mean) < 1e-6
    assert same.max < 1e-5
    assert (same.same_top, same.ppl_ratio, same.rms_delta_p, same.tokens) == (1.0, 1.0, 0.0, 62)
    alone = fastq.perplexity(model, TEXT, context=64, chunks=2)
    assert same.ppl == same.ppl_base == alone.ppl
    other = fastq.kl_divergence(model, fastq.Model(smollm2, context=64, kv="q8_0"), TEXT, context=64, chunks=2)
    assert 0 < other.mean < 0.05
    assert other.median <= other.p90 <= other.p99 <= other.max


def test_what_cannot_be_measured_is_refused(smollm2: Path, gemma3: Path) -> None:
    model = fastq.Model(smollm2, context=64)
    with pytest.raises(ValueError, match="at least two chunks of 64 tokens"):
        fastq.perplexity(model, "short", context=64)
    with pytest.raises(ValueError, match="context of 64"):
        fastq.perplexity(model, TEXT, context=65)
    with pytest.raises(ValueError, match="chunks must be at least 1"):
        fastq.perplexity(model, TEXT, context=64, chunks=0)
    with pytest.raises(ValueError, match="the same tokens"):
        fastq.kl_divergence(model, gemma3, TEXT, context=64)


def test_an_exception_of_the_progress_stops_the_work(smollm2: Path, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError

    with pytest.raises(StopError):
        fastq.calibrate(smollm2, [TEXT], tmp_path / "m.gguf", chunk_size=64, progress=stop)
    assert not list(tmp_path.iterdir())
