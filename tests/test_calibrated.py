"""Methods that look at what the layers compute: gain on other text than theirs, folded scales, resumption."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import fastq
from conftest import Make
from reference.reader import File

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "LICENSE-APACHE").read_text(encoding="utf-8")[:6000]
OTHER = (ROOT / "LICENSE-MIT").read_text(encoding="utf-8")
CALIBRATED: list[Literal["feedback", "awq", "auto"]] = ["feedback", "awq", "auto"]


@pytest.fixture(scope="module")
def source(make: Make) -> Path:
    return make(layers=2, width=256, heads=4, kv_heads=2, ffn=512, format="F16", context=512)


def error(source: Path, path: Path) -> float:
    """Mean square of the differences of the logits on another text, relative to that of the logits."""
    rows = []
    for file in (source, path):
        with fastq.Model(file, threads=2) as m:
            rows.append(m.logits(m.tokenize(OTHER)[:200], all=True))
    return float(((rows[0] - rows[1]) ** 2).mean() / (rows[0] ** 2).mean())


def test_every_method_is_better_than_rounding(source: Path, tmp_path: Path) -> None:
    errors = {}
    methods: list[Any] = ["rtn", "search", *CALIBRATED]
    for method in methods:
        text = [TEXT] if method in CALIBRATED else None
        out = tmp_path / f"{method}.gguf"
        result = fastq.quantize(source, out, "Q4_0", pure=True, method=method, calibration=text, own_text=0, threads=2)
        assert result.method == fastq.inspect(out).metadata["fastq.quantize.method"] == method
        assert result.types.keys() == {"Q4_0", "F32"}
        ways = {tensor.method for tensor in result.tensors if tensor.type == "Q4_0"}
        assert {None} == {tensor.method for tensor in result.tensors if tensor.type == "F32"}
        assert ways <= {"rtn": {"rtn"}, "search": {"search"}, "awq": {"search", "awq+search"}}.get(method, ways)
        assert method != "feedback" or "feedback" in ways
        assert method != "auto" or ways & {"feedback", "awq+feedback"}
        errors[method] = error(source, out)
    assert errors["search"] < errors["rtn"]
    assert errors["awq"] < errors["search"]
    assert errors["feedback"] < 0.85 * errors["rtn"]
    assert errors["auto"] < 0.85 * errors["rtn"]
    # Without text, search is what is left of "auto".
    fastq.quantize(source, tmp_path / "out.gguf", "Q4_0", pure=True, threads=2)
    left, search = File(tmp_path / "out.gguf"), File(tmp_path / "search.gguf")
    assert all(np.array_equal(left.tensors[name].data, tensor.data) for name, tensor in search.tensors.items())


def test_a_file_of_gram_matrices_stands_in_for_the_text(source: Path, tmp_path: Path) -> None:
    grams, rounded = tmp_path / "m.gram.gguf", tmp_path / "rtn.gguf"
    written = fastq.calibrate(source, [TEXT], grams, chunks=2, gram=True, process_output=True)
    # Of each layer: queries, keys and values; output; gate and up; down. And of the output matrix.
    assert (written.tensors, written.chunks) == (2 * 4 + 1, 2)
    file = File(grams)
    with fastq.Model(source, threads=1, context=512) as m:
        rows = 2 * 512
        squares = tmp_path / "m.imatrix.gguf"
        fastq.calibrate(m, [TEXT], squares, chunks=2, process_output=True)
    sums = File(squares)
    for name, tensor in file.tensors.items():
        if name.endswith(".gram_counts"):
            assert tensor.data.tobytes() == np.float32(rows).tobytes()
            continue
        gram = np.frombuffer(tensor.data.tobytes(), np.float32).reshape(tensor.shape[0], -1)
        assert np.array_equal(gram, gram.T)
        of = name.removesuffix(".gram") + ".in_sum2"
        diagonal = np.frombuffer(sums.tensors[of].data.tobytes(), np.float32)
        np.testing.assert_allclose(np.diag(gram), diagonal, rtol=1e-4)
    fastq.quantize(source, rounded, "Q4_0", pure=True, method="rtn", threads=2)
    for method in CALIBRATED:
        made = [tmp_path / f"{method}-{threads}.gguf" for threads in (1, 2)]
        for threads, out in enumerate(made, 1):
            fastq.quantize(source, out, "Q4_0", pure=True, method=method, calibration=grams, threads=threads)
        assert made[0].read_bytes() == made[1].read_bytes()
        assert error(source, made[0]) < error(source, rounded)


def test_gram_matrices_of_another_model_are_refused(source: Path, make: Make, tmp_path: Path) -> None:
    other, grams = (
        make(layers=2, width=128, heads=4, kv_heads=2, ffn=512, format="F16", context=512),
        tmp_path / "g.gguf",
    )
    fastq.calibrate(other, [TEXT], grams, chunks=1, gram=True)
    with pytest.raises(
        ValueError, match=r"is of 128 inputs, but its rows have 256: the file was made of another model"
    ):
        fastq.quantize(source, tmp_path / "out.gguf", method="feedback", calibration=grams)
    with pytest.raises(ValueError, match="expected text, for divergences are measured on it"):
        fastq.quantize(other, tmp_path / "out.gguf", target_bpw=5, calibration=grams)
    with pytest.raises(fastq.ModelFileError, match='expected "gram", found'):
        fastq.quantize(source, tmp_path / "out.gguf", method="feedback", calibration=source)
    whole = grams.read_bytes()
    for size in (30, 1000, len(whole) - 64):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises(fastq.ModelFileError):
            fastq.quantize(other, tmp_path / "out.gguf", method="feedback", calibration=tmp_path / "cut.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_norms_take_back_what_columns_get(source: Path, tmp_path: Path) -> None:
    """Weights in Q8_0 times the norm before them are those of the source."""
    out = tmp_path / "out.gguf"
    fastq.quantize(source, out, "Q2_K", method="awq", overrides={"attn_q": "Q8_0"}, calibration=[TEXT], own_text=0)
    before, after = File(source), File(out)
    scaled = 0
    for layer in range(2):
        norms = [file.tensors[f"blk.{layer}.attn_norm.weight"].rows()[0] for file in (before, after)]
        scaled += not np.array_equal(*norms)
        old, new = (file.tensors[f"blk.{layer}.attn_q.weight"].rows() * norm
                    for file, norm in zip((before, after), norms, strict=True))  # fmt: skip
        assert np.abs(old - new).max() < 0.01 * np.abs(old).max()
    assert scaled > 0, "nothing was scaled"


@pytest.mark.parametrize("method", CALIBRATED)
def test_interrupted_runs_give_the_same_file(
    method: Literal["feedback", "awq", "auto"], make: Make, tmp_path: Path
) -> None:
    """The inputs of later layers come from what an earlier run left; threads do not show."""
    # Deep enough that some report of the progress, which come every few hundredths of a second, lies in the middle.
    source = make(layers=6, width=256, heads=4, kv_heads=2, ffn=512, format="F16", context=512)
    whole, out = tmp_path / "whole.gguf", tmp_path / "out.gguf"
    options: dict[str, Any] = {"method": method, "calibration": [TEXT], "own_text": 1024}
    fastq.quantize(source, whole, threads=1, **options)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "quantizing" and done > 0.3 * total:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fastq.quantize(source, out, threads=2, progress=stop, **options)
    assert not out.exists()
    assert fastq.quantize(source, out, threads=2, **options).resumed > 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(tmp_path.iterdir()) == [out, whole]


@pytest.mark.parametrize("method", ["feedback", "awq"])
def test_text_that_is_missing_or_short(method: Literal["feedback", "awq"], source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs text to calibrate with"):
        fastq.quantize(source, tmp_path / "out.gguf", method=method)
    with pytest.raises(ValueError, match="at least two chunks of 512 tokens, found 5"):
        fastq.quantize(source, tmp_path / "out.gguf", method=method, calibration=["short"])
    with pytest.raises(ValueError, match="own text: expected text of at least 1024 tokens"):
        fastq.quantize(source, tmp_path / "out.gguf", method=method, own_text=1)
    assert not list(tmp_path.iterdir())


def test_text_that_the_model_writes_itself(source: Path, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []

    def made(name: str, **options: Any) -> bytes:
        out = tmp_path / f"{name}.gguf"
        fastq.quantize(source, out, "Q4_0", pure=True, **options)
        return out.read_bytes()

    alone = made("alone", method="feedback", own_text=4096, threads=1, progress=lambda *stage: stages.append(stage))
    written = [stage[1:] for stage in stages if stage[0] == "writing text"]
    assert written[-1] == (4096, 4096)
    assert written == sorted(written)
    assert stages[-1][0] == "quantizing"
    made("rtn", method="rtn")
    assert error(source, tmp_path / "alone.gguf") < 0.9 * error(source, tmp_path / "rtn.gguf")
    # The same text on other threads; another one where more is written, or beside a text.
    assert made("again", method="feedback", own_text=4096, threads=2) == alone
    text = made("text", method="feedback", calibration=[TEXT], own_text=0, threads=2)
    both = made("both", method="feedback", calibration=[TEXT], own_text=2048, threads=2)
    assert len({alone, made("less", method="feedback", own_text=2048, threads=2), text, both}) == 4
    # Without a text, "auto" writes none unless it is asked to.
    assert made("auto", threads=2) == made("search", own_text=0, threads=2) != made("asked", own_text=2048, threads=2)


def test_own_text_that_cannot_be(source: Path, tmp_path: Path, make: Make) -> None:
    out, grams = tmp_path / "out.gguf", tmp_path / "m.gram.gguf"
    with pytest.raises(ValueError, match="own_text must be at most 1048576 tokens, found 1048577"):
        fastq.quantize(source, out, own_text=2**20 + 1)
    with pytest.raises((ValueError, OverflowError), match="own_text"):
        fastq.quantize(source, out, own_text=-1)
    fastq.calibrate(source, [TEXT], grams, chunks=1, gram=True, process_output=True)
    with pytest.raises(ValueError, match="holds Gram matrices, to which no text can be added"):
        fastq.quantize(source, out, calibration=grams, own_text=1024)
    # A model that writes nothing is calibrated with the text alone, and with none not at all.
    encoder = make(architecture="bert", format="F16", context=512)
    with pytest.raises(ValueError, match="own_text: a bert model writes no text, so it needs calibration"):
        fastq.quantize(encoder, out, method="feedback", own_text=1024)
    assert not out.exists()
