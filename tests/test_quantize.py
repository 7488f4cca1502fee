"""Quantization of files: types, bytes, errors, metadata."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastq
import recipes
import tiny
from conftest import SMALL, Make
from fastq import _fastq
from reference.reader import File

ROWS_OF_256: dict[str, Any] = {"layers": 9, "width": 256, "heads": 4, "kv_heads": 2, "ffn": 512, "format": "F16"}


@pytest.fixture(scope="module")
def source(make: Make) -> Path:
    return make(**ROWS_OF_256)


def test_presets_have_llama_cpps_numbers() -> None:
    assert {name: number for name, number, _ in _fastq.presets()} == recipes.PRESETS


@pytest.mark.parametrize("model", recipes.NAMES)
def test_types_are_those_of_llama_quantize(model: str, tmp_path: Path) -> None:
    path, imatrix = recipes.write(tmp_path / "model.gguf", model), recipes.write_imatrix(tmp_path / "imatrix.gguf")
    wrong = []
    for preset, answers in recipes.reference()[model].items():
        for answer, matrix in zip(answers, (None, imatrix), strict=True):
            result = fastq.quantize(path, None, preset, imatrix=matrix, dry_run=True)
            found = recipes.digest({tensor.name: tensor.type for tensor in result.tensors})
            if answer and found != answer:  # llama.cpp refuses Q1_0 where blocks of 128 do not divide rows
                wrong.append(f"{preset}{' with imatrix' if matrix else ''}")
    assert not wrong


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_types_of_the_quality_figures(name: str, shared: Path) -> None:
    base = Path(os.environ.get("FASTQ_BASES", shared.parent / "bases")) / f"{name}-768.gguf"
    if not base.exists():
        pytest.skip(f"no base {base} (made by shared/quality/make_base.py; set FASTQ_BASES)")
    imatrix = shared / "quality" / f"{name}.imatrix.gguf"
    presets = json.loads((shared / "quality" / "quality.json").read_text())["bases"][name]["presets"]
    for preset, figures in presets.items():
        expected = {tensor: kind.upper() for kind, names in figures["tensors_by_type"].items() if kind != "f32"
                    for tensor in names}  # fmt: skip
        result = fastq.quantize(base, None, preset, imatrix=imatrix, dry_run=True)
        found = {tensor.name: tensor.type for tensor in result.tensors if tensor.type != "F32"}
        assert found == expected, preset
        # The files differ in the keys that say how they were made.
        assert abs(result.bytes - figures["bytes"]) < 1024, (preset, result.bytes, figures["bytes"])


@pytest.mark.parametrize("target", ["Q4_K_M", "Q4_0", "IQ4_XS", "Q6_K", "Q8_0", "MXFP4", "TQ2_0", "BF16", "F32"])
def test_data_are_those_of_quantize_array(target: str, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    result = fastq.quantize(source, out, target, method="rtn", threads=2)
    before, after = File(source), File(out)
    assert list(before.tensors) == list(after.tensors) == [tensor.name for tensor in result.tensors]
    assert result.bytes == out.stat().st_size
    for tensor in result.tensors:
        old, new = before.tensors[tensor.name], after.tensors[tensor.name]
        assert new.codec.name == tensor.type
        assert new.data.nbytes == tensor.bytes
        if tensor.type == tensor.source_type:
            assert tensor.error is None
            assert np.array_equal(old.data, new.data)
            continue
        weights = old.rows()
        assert np.array_equal(fastq.quantize_array(weights, tensor.type).reshape(-1), new.data), tensor.name
        difference = weights.astype(np.float64) - new.rows()
        assert tensor.error is not None
        assert tensor.worst is not None
        assert tensor.error == pytest.approx((difference**2).sum() / (weights.astype(np.float64) ** 2).sum(), rel=1e-6)
        assert tensor.worst == pytest.approx(np.abs(difference).max(), rel=1e-6)
        if tensor.snr_db is not None:
            assert tensor.snr_db == pytest.approx(-10 * np.log10(tensor.error))
    with fastq.Model(out, threads=2) as m:
        assert np.isfinite(m.logits([300, 301])).all()


def test_threads_do_not_show(make: Make, tmp_path: Path) -> None:
    source, files = make(**{**ROWS_OF_256, "layers": 2}), []
    for threads in (1, 3):
        fastq.quantize(source, tmp_path / "out.gguf", "Q5_K_M", threads=threads)
        files.append((tmp_path / "out.gguf").read_bytes())
    assert files[0] == files[1]


def imatrix_of(path: Path, source: Path, experts: int | None = None) -> Path:
    """A made-up importance matrix `(experts, k)` for every matrix of a model."""
    rng = np.random.default_rng(3)
    form = tiny.FORMATS["F32"]
    tensors, data = [], []
    for name, tensor in File(source).tensors.items():
        if len(tensor.shape) > 1 and not name.startswith("token_embd"):
            rows = tensor.shape[0] if len(tensor.shape) == 3 else 1
            sums = rng.gamma(1.0, 1.0, (rows, tensor.shape[-1])).astype("<f4")
            counts = np.full((rows, 1), 2.0, "<f4")
            tensors += [tiny.Tensor(name + ".in_sum2", rows, tensor.shape[-1], form, "matrix"),
                        tiny.Tensor(name + ".counts", rows, 1, form, "matrix")]  # fmt: skip
            data += [sums, counts]
    pairs = [tiny.Pair("general.type", tiny.STRING, "imatrix"),
             tiny.Pair("imatrix.datasets", tiny.ARRAY, ["calibration.txt"], tiny.STRING),
             tiny.pair("imatrix.chunk_count", 7), tiny.pair("imatrix.chunk_size", 512)]  # fmt: skip
    with open(path, "wb") as file:
        tiny.write_head(file, pairs, tensors)
        for values in data:
            file.write(values.tobytes() + tiny.padding(values.nbytes))
    return path


def test_importance_of_every_expert(make: Make, tmp_path: Path) -> None:
    source = make(architecture="qwen3moe", experts=3, experts_used=2, expert_ffn=256, **{**ROWS_OF_256, "layers": 2})
    imatrix, out = imatrix_of(tmp_path / "imatrix.gguf", source), tmp_path / "out.gguf"
    result = fastq.quantize(source, out, "Q4_K", pure=True, imatrix=imatrix, method="rtn")
    used = {tensor.name: tensor.importance for tensor in result.tensors if tensor.type == "Q4_K"}
    assert not used.pop("token_embd.weight")
    assert used
    assert all(used.values())
    before, after, sums = File(source), File(out), File(imatrix)
    for name in used:
        weights, blocks = before.tensors[name].rows(), after.tensors[name].data
        values = sums.tensors[name + ".in_sum2"].rows() / np.float32(2)
        each, data = len(weights) // len(values), blocks.reshape(len(weights), -1)
        for expert, importance in enumerate(values):
            part = slice(expert * each, (expert + 1) * each)
            expected = fastq.quantize_array(weights[part], "Q4_K", importance)
            assert np.array_equal(expected, data[part]), (name, expert)


def test_metadata_say_what_was_done(source: Path, tmp_path: Path) -> None:
    out, imatrix = tmp_path / "out.gguf", imatrix_of(tmp_path / "imatrix.gguf", source)
    fastq.quantize(source, out, "q5_k_m", imatrix=imatrix, method="rtn", overrides=[("attn_v", "q8_0")])
    before, after = fastq.inspect(source).metadata, dict(fastq.inspect(out).metadata)
    added = {key: value for key, value in after.items() if before.get(key) != value}
    entries = sum(1 for tensor in fastq.inspect(imatrix).tensors) // 2
    assert added == {
        "general.file_type": 17,
        "quantize.imatrix.file": str(imatrix),
        "quantize.imatrix.dataset": "calibration.txt",
        "quantize.imatrix.entries_count": entries,
        "quantize.imatrix.chunks_count": 7,
        "fastq.quantize.version": fastq.__version__,
        "fastq.quantize.target": "Q5_K_M",
        "fastq.quantize.method": "rtn",
        "fastq.quantize.overrides": ["attn_v=Q8_0"],
    }
    assert before.keys() <= after.keys()
    assert after["general.quantization_version"] == 2  # the source has it, too


def test_types_that_are_asked_for(source: Path) -> None:
    result = fastq.quantize(
        source, None, "Q4_K_M", overrides={r"blk\.0\.attn_v": "Q8_0", "attn_v": "IQ4_NL", "ffn_down": "F16"},
        output_type="Q5_1", dry_run=True,
    )  # fmt: skip
    types = {tensor.name: tensor.type for tensor in result.tensors}
    assert types["blk.0.attn_v.weight"] == "Q8_0"
    assert types["blk.8.attn_v.weight"] == "IQ4_NL"
    assert types["blk.3.ffn_down.weight"] == "F16"
    assert types["token_embd.weight"] == "Q5_1"  # it is the output, too
    assert types["blk.0.attn_q.weight"] == "Q4_K"


def test_a_copy_is_a_copy(source: Path, tmp_path: Path) -> None:
    fastq.quantize(source, tmp_path / "out.gguf", "copy")
    assert (tmp_path / "out.gguf").read_bytes() == source.read_bytes()


def test_split_models_become_one_file(source: Path, tmp_path: Path) -> None:
    parts = tiny.write_split(tmp_path / "split", tiny.Tiny(**ROWS_OF_256), 3)
    for name, path in (("one", source), ("three", parts[0])):
        fastq.quantize(path, tmp_path / f"{name}.gguf", "Q4_0", method="rtn")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "three.gguf").read_bytes()
    with pytest.raises(ValueError, match="is being read"):
        fastq.quantize(parts[0], parts[2], "Q4_0")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"target": "Q8_K"}, "Q8_K is what activations become"),
    ({"target": "nonsense"}, "there are Q1_0, IQ1_S, .*Q4_K_M"),
    ({"target": "IQ2_XXS"}, "needs an importance matrix, and none is given; make one with `fastq calibrate"),
    ({"method": "magic"}, "known: rtn"),
    ({"overrides": {"attn_vv": "Q8_0"}}, '"attn_vv" matches no tensor'),
    ({"overrides": {"(": "Q8_0"}}, "not a regular expression"),
    ({"overrides": {"attn_v": "Q4_K_M"}}, "mix of types"),
    ({"output_type": "Q9"}, 'unknown type "Q9"'),
    ({"target": "copy", "output_type": "Q8_0"}, "a copy keeps every type"),
    ({"threads": 0}, "threads must be"),
    ({"threads": -1}, "threads must not be negative"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_wrong_arguments(options: dict[str, Any], message: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fastq.quantize(source, tmp_path / "out.gguf", **options)
    assert not list(tmp_path.iterdir())


def test_an_importance_matrix_of_another_model(make: Make, source: Path, tmp_path: Path) -> None:
    imatrix = imatrix_of(tmp_path / "imatrix.gguf", make(format="F16", **SMALL))
    with pytest.raises(ValueError, match="made of another model"):
        fastq.quantize(source, tmp_path / "out.gguf", "Q4_K_M", imatrix=imatrix)
    with pytest.raises(fastq.ModelFileError, match="expected an imatrix"):
        fastq.quantize(source, tmp_path / "out.gguf", "Q4_K_M", imatrix=source)
    with pytest.raises(ValueError, match="imatrix"):
        fastq.quantize(imatrix, tmp_path / "out.gguf", "Q4_K_M")


def test_quantizing_twice_has_to_be_allowed(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(ValueError, match=r"is quantized already \(Q8_0\).*allow_requantize"):
        fastq.quantize(small, out, "Q4_0")
    result = fastq.quantize(small, out, "Q4_0", allow_requantize=True)
    assert any("quantized again" in warning for warning in result.warnings)
    # What keeps its type is no second time.
    fastq.quantize(small, out, "Q8_0", pure=True)
    assert not [path for path in tmp_path.iterdir() if path != out]


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
@pytest.mark.parametrize("name", ["blk.1.attn_q.weight", "blk.1.attn_norm.weight"])
def test_weights_that_are_no_numbers(name: str, value: float, make: Make, tmp_path: Path) -> None:
    source = make(format="F32", **SMALL)
    damaged = bytearray(source.read_bytes())
    tensor = File(source).tensors[name]
    weight = 70 % (tensor.data.nbytes // 4)
    at = damaged.index(tensor.data.tobytes()) + 4 * weight
    damaged[at : at + 4] = np.float32(value).tobytes()
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    if value == 3e38 and "norm" in name:
        fastq.quantize(path, tmp_path / "out.gguf", "Q8_0")
        return
    row, column = divmod(weight, tensor.shape[-1])
    expected = f"row {row} are too large" if value == 3e38 else f"weight {column} of row {row} is (NaN|inf)"
    with pytest.raises(fastq.ModelFileError, match=f'tensor "{re.escape(name)}".*{expected}'):
        fastq.quantize(path, tmp_path / "out.gguf", "Q8_0")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_dry_run_says_what_to_expect(source: Path, tmp_path: Path) -> None:
    """Error, seconds and memory of a sample are near those of the run; what a run refuses is refused."""
    out = tmp_path / "out.gguf"
    for method in ("rtn", "search"):
        for preset in ("Q4_0", "Q8_0"):
            dry = fastq.quantize(source, None, preset, method=method, dry_run=True)
            done = fastq.quantize(source, out, preset, method=method)
            assert dry.bytes == done.bytes
            assert dry.error is not None
            assert done.error is not None
            assert dry.error == pytest.approx(done.error, rel=0.5)
            assert dry.seconds > 0
            assert dry.peak_rss_bytes is None or dry.peak_rss_bytes > 0
            assert dry.mean_kld is None
    with pytest.raises(ValueError, match=r'"feedback" needs text'):
        fastq.quantize(source, None, "Q4_0", method="feedback", dry_run=True)
    text = "The sun rises over the sea. " * 400
    dry = fastq.quantize(source, None, "Q4_0", method="feedback", calibration=_text(tmp_path, text), dry_run=True)
    assert dry.seconds > 0


def _text(folder: Path, text: str) -> Path:
    path = folder / "text.txt"
    path.write_text(text)
    return path


def test_report_is_one_page(source: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = fastq.quantize(source, None, "Q4_K_M", dry_run=True, report=page)
    text = page.read_text()
    assert text == result.html()
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", text)
    assert text.count("<tr>") == 2 + len(result.types) + len(result.tensors)
    text = result.html([("<Q4_K_M>", 1000, 0.1), ("Q3", 800, 0.3), ("exact", 2000, 0.0)])
    assert "&lt;Q4_K_M&gt;" in text
    assert "<svg" in text
    assert text.count("<circle") == 3
    assert not re.search('[">]NaN', text)
    again = type(result).from_json(json.dumps(result.to_dict()))
    assert again == result


def test_progress_goes_from_nothing_to_all(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    out = tmp_path / "out.gguf"
    fastq.quantize(source, out, "Q4_0", method="rtn", progress=lambda *all_of_it: seen.append(all_of_it))
    assert seen[-1][1] == seen[-1][2] == fastq.inspect(source).parameters
    assert seen == sorted(seen, key=lambda item: item[1])


def test_memory_stays_small(make: Make, tmp_path: Path, note: Callable[[str], None]) -> None:
    """Far below the bound of twice the largest tensor in f32 and 300 MB; in a process that has its own peak."""
    source = make(layers=1, width=2048, heads=16, kv_heads=4, ffn=8192, format="F16", vocab_size=16384)
    code = """if True:
        import fastq, sys
        def peak():
            lines = open("/proc/self/status")
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
        before = peak()
        fastq.quantize(sys.argv[1], sys.argv[2], "Q4_0", method="rtn", threads=2)
        print(peak() - before)
    """
    command = [sys.executable, "-c", code, str(source), str(tmp_path / "out.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = int(done.stdout)
    note(f"quantizing a file of {source.stat().st_size >> 20} MiB takes {grown / 2**20:.1f} MiB")
    assert grown < 64 << 20
