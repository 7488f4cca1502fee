"""`fastq.convert`: checkpoints made of tiny models become those models again; integers stay; damage has a name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import hf
from conftest import Make
from families import FAMILIES
from reference.reader import File
from shapes import ENCODERS, SHAPES

Array = npt.NDArray[Any]

SMALL: dict[str, Any] = {"width": 64, "heads": 2, "kv_heads": 2, "ffn": 96, "context": 128}
CASES: dict[str, dict[str, Any]] = {
    **{name: {"architecture": name, **SMALL} for name in FAMILIES},
    "lfm2": {"architecture": "lfm2", **SMALL, "layers": 3},
    "qwen35": {"architecture": "qwen35", **SMALL, "layers": 4},
    "phi2": {"architecture": "phi2", **SMALL, "fused_qkv": False},
    **{
        name: (SHAPES | ENCODERS)[name]
        for name in (
            "llama, 3 heads on 1",
            "llama, spm vocabulary, ffn 352",
            "llama, all biases, untied",
            "llama, linear scaling",
            "llama, yarn",
            "gemma2",
            "gemma2, a window in two of three layers",
            "phi3, long factors, partial rope",
            "granite, untied, all biases, yarn",
            "olmo2, window 7, yarn",
            "stablelm, parallel, head norms",
            "granitemoe, untied, shared expert",
            "lfm2, untied, attention first",
            "qwen35, 6 heads on 3, state of 64",
            "qwen35, equal heads, two layers of attention",
            "nomic-bert, cls, biases, q, k and v apart",
        )
        if "apart" not in name
    },
    "mistral3, temperature, yarn": {**SHAPES["mistral3, temperature, yarn"], "width": 64},
}
CASES["granite, untied, all biases, yarn"] = {**CASES["granite, untied, all biases, yarn"], "width": 128}

OTHER_KEYS = {
    "general.name", "general.file_type", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.normalizer.lowercase",
    "general.type", "general.size_label",
}  # fmt: skip
"""What need not be the same: names, and what is the default where it is not written."""
DEFAULTS = ("rope.dimension_count", "attention.key_length", "attention.value_length", "attention.sliding_window",
            "use_parallel_residual", "rope.scaling.original_context_length", "full_attention_interval",
            "rope.freq_base", "attention.causal", "expert_feed_forward_length", "tokenizer.ggml.add_space_prefix",
            "rope.scaling.attn_factor", "rope.scaling.type")  # fmt: skip
"""Keys that only one of both may have, because they say the default."""


def same(a: Any, b: Any) -> bool:
    if isinstance(a, float) or isinstance(b, float):
        return bool(np.isclose(a, b, rtol=1e-6))
    return bool(a == b)


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_becomes_the_model_it_is(name: str, make: Make, tmp_path: Path) -> None:
    source = make(**CASES[name])
    out = tmp_path / "out.gguf"
    result = fastq.convert(hf.write(tmp_path / "hf", source), out)
    expected, found = File(source), File(out)
    arch = expected.metadata["general.architecture"]
    assert result.architecture == found.metadata["general.architecture"] == arch
    assert (result.tensors, result.bytes) == (len(found.tensors), out.stat().st_size)

    assert sorted(found.tensors) == sorted(expected.tensors)
    for key, tensor in expected.tensors.items():
        # A vector for each head is a matrix here and there.
        assert found.tensors[key].shape == tensor.shape, key
        if key.endswith("ssm_a"):  # went through a logarithm
            np.testing.assert_allclose(found.tensors[key].rows(), tensor.rows(), rtol=1e-6)
        else:
            assert np.array_equal(found.tensors[key].data, tensor.data), key

    for key in expected.metadata.keys() | found.metadata.keys():
        a, b = expected.metadata.get(key), found.metadata.get(key)
        if key in OTHER_KEYS or (key.endswith(DEFAULTS) and None in (a, b)) or key.startswith("general."):
            continue
        if key.endswith("sliding_window_pattern") or (key == "tokenizer.ggml.pre" and arch in ("bert", "nomic-bert")):
            continue  # a number or an array; a name without a meaning
        assert same(a, b), f"{key}: {str(a)[:200]} became {str(b)[:200]}"
    if arch not in ("bert", "nomic-bert", "qwen35"):
        tokens = list(range(5, 45))
        with fastq.Model(source, context=64, threads=1) as a, fastq.Model(out, context=64, threads=1) as b:
            assert np.array_equal(a.logits(tokens), b.logits(tokens))
            assert a.tokenize("The light's 12 on\n\n it") == b.tokenize("The light's 12 on\n\n it")


def test_llama3_factors_are_those_of_the_formula(make: Make, tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 128}  # fmt: skip
    folder = hf.write(tmp_path / "hf", make(**SMALL), rope_theta=None, rope_parameters=rope)
    fastq.convert(folder, tmp_path / "out.gguf")
    file = File(tmp_path / "out.gguf")
    assert file.metadata["llama.rope.freq_base"] == 500000.0
    inverse = 500000.0 ** (-np.arange(0, 32, 2) / 32)
    turns = 128 * inverse / (2 * np.pi)
    smooth = np.clip((turns - 1) / 3, 0, 1)
    expected = 1 / ((1 - smooth) / 8 + smooth)
    np.testing.assert_allclose(file.tensors["rope_freqs.weight"].rows()[0], expected, rtol=1e-6)
    assert expected[0] == 1
    assert expected[-1] == 8


# ---------------------------------------------------------------------------------------------------------------- types
@pytest.mark.parametrize(("dtype", "kind", "number"), [("f32", "F32", 0), ("f16", "F16", 1), ("bf16", "BF16", 32),
                                                      ("q8_0", "Q8_0", 7)])  # fmt: skip
def test_types(dtype: str, kind: str, number: int, make: Make, tmp_path: Path) -> None:
    source = make(**SMALL)
    folder = hf.write(tmp_path / "hf", source, shards=3)
    result = fastq.convert(folder, tmp_path / "out.gguf", dtype=dtype, name="My model-135M-Chat")
    info = fastq.inspect(tmp_path / "out.gguf")
    assert info.metadata["general.file_type"] == number
    named = [info.metadata[f"general.{key}"] for key in ("name", "basename", "finetune")]
    assert named == ["My model-135M-Chat", "My-model", "Chat"]
    weights = File(source)
    for tensor in info.tensors:
        matrix = len(tensor.shape) == 2
        assert tensor.type == (kind if matrix else "F32"), tensor.name
        if matrix and kind in ("F16", "Q8_0"):
            rows = weights.tensors[tensor.name].rows()
            made = File(tmp_path / "out.gguf").tensors[tensor.name]
            assert np.array_equal(made.data, fastq.quantize_array(np.ascontiguousarray(rows), kind).reshape(-1))
    assert result.types[kind] > 0


@pytest.mark.parametrize(("kind", "convert"), [("F16", lambda x: x.astype("<f2")), ("BF16", hf.bf16)])
def test_types_of_the_checkpoint_stay(kind: str, convert: Callable[[Array], Array], make: Make, tmp_path: Path) -> None:
    source = make(format=kind, **SMALL)
    folder = hf.write(tmp_path / "hf", source, change=lambda tensors: {name: convert(x) for name, x in tensors.items()})
    fastq.convert(folder, tmp_path / "out.gguf")
    expected, found = File(source), File(tmp_path / "out.gguf")
    for name, tensor in expected.tensors.items():
        if len(tensor.shape) == 2:
            assert found.tensors[name].codec.name == kind
            assert np.array_equal(found.tensors[name].data, tensor.data), name


def test_what_f16_cannot_hold_is_an_error_that_names_it(make: Make, tmp_path: Path) -> None:
    def change(tensors: hf.Tensors) -> hf.Tensors:
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e5
        return tensors

    folder = hf.write(tmp_path / "hf", make(**SMALL), change=change)
    with pytest.raises(fastq.ModelFileError, match=r'tensor "model.layers.1.mlp.up_proj.weight" has 100000 in row 3'):
        fastq.convert(folder, tmp_path / "out.gguf", dtype="f16")
    assert list(tmp_path.iterdir()) == [folder]
    fastq.convert(folder, tmp_path / "out.gguf", dtype="bf16")


def test_progress_and_interruption(make: Make, tmp_path: Path) -> None:
    folder = hf.write(tmp_path / "hf", make(**SMALL))
    seen: list[tuple[str, int, int]] = []
    fastq.convert(folder, tmp_path / "out.gguf", progress=lambda *report: seen.append(report))
    assert seen[-1][0] == "writing"
    assert seen[-1][1] == seen[-1][2]

    class Stop(Exception):  # noqa: N818 - what a caller raises
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "writing":
            raise Stop

    before = (tmp_path / "out.gguf").read_bytes()
    with pytest.raises(Stop):
        fastq.convert(folder, tmp_path / "out.gguf", dtype="f16", progress=stop)
    assert (tmp_path / "out.gguf").read_bytes() == before


# ------------------------------------------------------------------------------------------------------------ tokenizer
def test_merges_of_a_sentencepiece_model_give_its_scores(make: Make, tmp_path: Path) -> None:
    """tokenizer.json alone: the same tokens as with the scores."""
    source = make(**SMALL, vocabulary="spm")
    folder = hf.write(tmp_path / "hf", source)
    fastq.convert(folder, tmp_path / "a.gguf")
    meta = File(source).metadata
    tokens, scores = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.scores"]
    ids = {token: number for number, token in enumerate(tokens)}
    merges = sorted(
        (-scores[number], token[:at], token[at:])
        for token, number in ids.items()
        for at in range(1, len(token))
        if meta["tokenizer.ggml.token_type"][number] == 1 and token[:at] in ids and token[at:] in ids
    )
    model = {
        "type": "BPE",
        "vocab": ids,
        "merges": [[a, b] for _, a, b in merges],
        "byte_fallback": True,
        "unk_token": "<unk>",
    }
    steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    added = [{"id": number, "content": tokens[number], "special": True}
             for number, kind in enumerate(meta["tokenizer.ggml.token_type"]) if kind in (2, 3)]  # fmt: skip
    whole = {"model": model, "normalizer": {"type": "Sequence", "normalizers": steps}, "added_tokens": added}
    (folder / "tokenizer.model").unlink()
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    fastq.convert(folder, tmp_path / "b.gguf")
    text = "There is no way to know what people will make of it: 12 日本 é🙂\n  number"
    with fastq.Model(tmp_path / "a.gguf", context=64) as a, fastq.Model(tmp_path / "b.gguf", context=64) as b:
        assert a.tokenize(text) == b.tokenize(text)
        assert a.detokenize(b.tokenize(text)) == text


def test_a_pre_tokenizer_without_a_name_has_to_be_named(make: Make, tmp_path: Path) -> None:
    folder = hf.write(tmp_path / "hf", make(**SMALL))
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "x|y"
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(fastq.TokenizerError, match=r"no name that this version knows: \"split:x\|y\"; give the name"):
        fastq.convert(folder, tmp_path / "out.gguf")
    with pytest.raises(ValueError, match=r"pre must be one of .*, found \"nonsense\""):
        fastq.convert(folder, tmp_path / "out.gguf", pre="nonsense")
    fastq.convert(folder, tmp_path / "out.gguf", pre="qwen2")
    assert fastq.inspect(tmp_path / "out.gguf").metadata["tokenizer.ggml.pre"] == "qwen2"


# -------------------------------------------------------------------------------------------------------------- command
def test_the_command(make: Make, tmp_path: Path) -> None:
    folder = hf.write(tmp_path / "hf", make(**SMALL), sliding_window=16)
    command = [sys.executable, "-m", "fastq", "convert", str(folder), str(tmp_path / "out.gguf")]
    done = subprocess.run([*command, "--json", "--dtype", "f16"], capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    assert record["architecture"] == "llama"
    assert record["bytes"] == (tmp_path / "out.gguf").stat().st_size
    assert "warning: config.json: its sliding window of 16 has no place in llama" in done.stderr
    shutil.rmtree(folder)
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no such file")
