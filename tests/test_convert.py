"""`fastq.convert`: checkpoints made of tiny models become those models again; integers stay; damage has a name."""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
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
    "general.type", "general.size_label", "tokenizer.ggml.pre",
}  # fmt: skip
"""What need not be the same: names, and what is the default where it is not written."""
DEFAULTS = ("rope.dimension_count", "attention.key_length", "attention.value_length", "attention.sliding_window",
            "use_parallel_residual", "rope.scaling.original_context_length", "full_attention_interval",
            "rope.freq_base", "attention.causal", "expert_feed_forward_length", "tokenizer.ggml.add_space_prefix",
            "rope.scaling.attn_factor", "attention.sliding_window_pattern")  # fmt: skip
"""Keys that only one of both may have, because they say the default."""


@pytest.fixture
def warnings_of_fastq() -> Iterator[list[str]]:
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler = Handler()
    logging.getLogger("fastq").addHandler(handler)
    yield found
    logging.getLogger("fastq").removeHandler(handler)


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


# ------------------------------------------------------------------------------------------------------------- integers
GROUP = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Grid:
    """A matrix of random integers with scales and zeros per group."""

    def __init__(self, rng: np.random.Generator, rows: int, k: int, group: int, symmetric: bool, bits: int = 4) -> None:
        groups = k // group
        self.levels = rng.integers(0, 1 << bits, (rows, k))
        self.scales = (rng.uniform(0.5, 1.5, (rows, groups)) / 16).astype("<f2")
        middle = 1 << (bits - 1)
        self.zeros = np.full((rows, groups), middle) if symmetric else rng.integers(1, 1 << bits, (rows, groups))
        self.group, self.bits = group, bits

    def weights(self) -> Array:
        spread = [np.repeat(x, self.group, axis=1).astype(np.float32) for x in (self.scales, self.zeros)]
        return spread[0] * (self.levels - spread[1])


def words(values: Array, axis: int, bits: int = 4, order: tuple[int, ...] | None = None) -> Array:
    """Integers packed into words along an axis, the first one lowest."""
    per_word = 32 // bits
    moved = np.moveaxis(values, axis, -1).astype(np.uint32)
    moved = moved.reshape(*moved.shape[:-1], -1, per_word)
    if order is not None:
        moved = moved[..., list(order)]
    packed = (moved << (np.arange(per_word, dtype=np.uint32) * bits)).sum(axis=-1, dtype=np.uint32)
    return np.ascontiguousarray(np.moveaxis(packed, -1, axis)).view(np.int32)


def gptq(name: str, grid: Grid, version: int = 1, order: Array | None = None) -> hf.Tensors:
    index = np.arange(grid.levels.shape[1]) // grid.group if order is None else order
    return {
        f"{name}.qweight": words(grid.levels.T, 0, grid.bits),
        f"{name}.qzeros": words(grid.zeros.T - (version == 1), 1, grid.bits),
        f"{name}.scales": np.ascontiguousarray(grid.scales.T),
        f"{name}.g_idx": index.astype(np.int32),
    }


def awq(name: str, grid: Grid) -> hf.Tensors:
    return {
        f"{name}.qweight": words(grid.levels.T, 1, order=AWQ_ORDER),
        f"{name}.qzeros": words(grid.zeros.T, 1, order=AWQ_ORDER),
        f"{name}.scales": np.ascontiguousarray(grid.scales.T),
    }


def compressed(name: str, grid: Grid, symmetric: bool) -> hf.Tensors:
    zeros = {} if symmetric else {f"{name}.weight_zero_point": words(grid.zeros, 0)}
    return {
        f"{name}.weight_packed": words(grid.levels, 1),
        f"{name}.weight_scale": grid.scales,
        f"{name}.weight_shape": np.array(grid.levels.shape, np.int64),
        **zeros,
    }


def mlx(name: str, grid: Grid) -> hf.Tensors:
    biases = (-grid.scales.astype(np.float32) * grid.zeros).astype("<f2")
    return {f"{name}.weight": words(grid.levels, 1).view(np.uint32), f"{name}.scales": grid.scales, f"{name}.biases": biases}


def settings(method: str, group: int, bits: int = 4) -> dict[str, Any]:
    if method == "mlx":
        return {"quantization": {"group_size": group, "bits": bits}}
    if method == "compressed":
        weights = {"num_bits": bits, "group_size": group, "type": "int", "strategy": "group"}
        groups = {"group_0": {"weights": weights, "targets": ["Linear"]}}
        own = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
        return {"quantization_config": own}
    own = {"quant_method": method.split("_")[0], "bits": bits, "group_size": group}
    if method == "gptq_v2":
        own["checkpoint_format"] = "gptq_v2"
    return {"quantization_config": own}


PACK: dict[str, Callable[[str, Grid, bool], hf.Tensors]] = {
    "gptq": lambda name, grid, _: gptq(name, grid),
    "gptq_v2": lambda name, grid, _: gptq(name, grid, 2),
    "awq": lambda name, grid, _: awq(name, grid),
    "compressed": compressed,
    "mlx": lambda name, grid, _: mlx(name, grid),
}


def quantized(source: Path, folder: Path, method: str, group: int, symmetric: bool) -> dict[str, Grid]:
    """A checkpoint whose matrices in the layers are quantized; and what they are."""
    rng = np.random.default_rng(7)
    grids: dict[str, Grid] = {}

    def change(tensors: hf.Tensors) -> hf.Tensors:
        changed: hf.Tensors = {}
        for name, data in tensors.items():
            if "_proj.weight" in name:
                module = name.removesuffix(".weight")
                grids[name] = Grid(rng, *data.shape, group, symmetric)
                changed |= PACK[method](module, grids[name], symmetric)
            else:
                changed[name] = data
        return changed

    hf.write(folder, source, change=change, **settings(method, group))
    return grids


def unpacked(tensor: Any) -> tuple[Array, Array]:
    """Integers `(rows, k)` and scales per block of Q4_0 or Q4_1."""
    rows, k = tensor.shape
    size = tensor.codec.size
    blocks = tensor.data.reshape(-1, size)
    nibbles = blocks[:, size - 16 :]
    levels = np.concatenate([nibbles & 15, nibbles >> 4], axis=1).reshape(rows, k)
    return levels, np.ascontiguousarray(blocks[:, :2]).view("<f2").reshape(rows, k // 32)


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("symmetric", [True, False], ids=["around 8", "with zeros"])
@pytest.mark.parametrize("method", PACK)
def test_integers_of_four_bits_stay(method: str, symmetric: bool, group: int, make: Make, tmp_path: Path) -> None:
    source = make(**{**SMALL, "ffn": 128})
    grids = quantized(source, tmp_path / "hf", method, group, symmetric)
    result = fastq.convert(tmp_path / "hf", tmp_path / "out.gguf")
    assert result.notes == []
    kind = "Q4_0" if symmetric else "Q4_1"
    assert result.types[kind] == len(grids) == 14
    file = File(tmp_path / "out.gguf")
    heads = {"self_attn.q_proj": 2, "self_attn.k_proj": 2}
    for name, grid in grids.items():
        layer, module = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
        tensor = file.tensors[f"blk.{layer}.{MODULES[module]}.weight"]
        assert tensor.codec.name == kind
        levels, scales = unpacked(tensor)
        # Rows of queries and keys move whole: halves of a head become neighbours.
        order = np.arange(tensor.shape[0])
        if module in heads:
            order = order.reshape(heads[module], 2, -1).swapaxes(1, 2).reshape(-1)
        assert np.array_equal(levels, grid.levels[order]), name
        assert np.array_equal(scales, np.repeat(grid.scales, group // 32, axis=1)[order]), name
        # The only loss is that of the minimum as f16.
        bound = 0 if symmetric else np.abs(grid.scales.astype(np.float32) * grid.zeros).max() * 2**-11
        assert np.abs(tensor.rows() - grid.weights()[order]).max() <= bound
    assert file.metadata["general.file_type"] in (0, 2 if symmetric else 3)
    with fastq.Model(tmp_path / "out.gguf", context=64, threads=1) as model:
        assert np.isfinite(model.logits(list(range(20)))).all()


MODULES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
           "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
           "mlp.down_proj": "ffn_down"}  # fmt: skip


def test_integers_become_floats_where_that_is_asked(make: Make, tmp_path: Path) -> None:
    grids = quantized(make(**SMALL), tmp_path / "hf", "awq", 32, False)
    fastq.convert(tmp_path / "hf", tmp_path / "out.gguf", dtype="f32")
    found = File(tmp_path / "out.gguf").tensors["blk.0.ffn_down.weight"].rows()
    assert np.array_equal(found, grids["model.layers.0.mlp.down_proj.weight"].weights())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"bits": 8}, "8 bits in groups of 32: only four bits have a block format"),
        ({"bits": 2}, "2 bits in groups of 32: only four bits have a block format"),
        ({"group": 16}, "4 bits in groups of 16: groups are no multiple of 32"),
        ({"act_order": True}, "4 bits in groups of 32: its columns are not in the order of their groups (act-order)"),
    ],
)
def test_what_has_no_place_becomes_floats_and_is_told(
    change: dict[str, Any], why: str, make: Make, tmp_path: Path, warnings_of_fastq: list[str]
) -> None:
    rng = np.random.default_rng(5)
    group, bits = change.get("group", 32), change.get("bits", 4)
    name = "model.layers.0.mlp.down_proj"
    kept: dict[str, Array] = {}

    def swap(tensors: hf.Tensors) -> hf.Tensors:
        grid = Grid(rng, *tensors.pop(name + ".weight").shape, group, False, bits)
        kept["weights"] = grid.weights()
        order = None
        if change.get("act_order"):
            columns = rng.permutation(grid.levels.shape[1])
            order = columns // group
            spread = (x[:, order].astype(np.float32) for x in (grid.scales, grid.zeros))
            scales, zeros = spread
            kept["weights"] = scales * (grid.levels - zeros)
        return tensors | gptq(name, grid, order=order)

    hf.write(tmp_path / "hf", make(**SMALL), change=swap, **settings("gptq", group, bits))
    result = fastq.convert(tmp_path / "hf", tmp_path / "out.gguf")
    assert [(note.subject, note.text) for note in result.notes] == [(name + ".weight", f"its integers are not kept: {why}")]
    assert warnings_of_fastq == [f"{name}.weight: its integers are not kept: {why}"]
    tensor = File(tmp_path / "out.gguf").tensors["blk.0.ffn_down.weight"]
    assert tensor.codec.name == "F16"
    assert np.array_equal(tensor.rows(), kept["weights"].astype(np.float16).astype(np.float32))


def test_the_four_bit_floats_of_gpt_oss_stay(make: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    codes: dict[str, tuple[Array, Array]] = {}

    def change(tensors: hf.Tensors) -> hf.Tensors:
        for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
            experts, k, rows = tensors.pop(name).shape
            pairs = rng.integers(0, 256, (experts, rows, k // 32, 16)).astype(np.uint8)
            scales = rng.integers(118, 126, (experts, rows, k // 32)).astype(np.uint8)
            tensors[name + "_blocks"], tensors[name + "_scales"] = pairs, scales
            codes[name] = (np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(experts, rows, k), scales)
        return tensors

    source = make(architecture="gpt-oss", **SMALL)
    hf.write(tmp_path / "hf", source, change=change, quantization_config={"quant_method": "mxfp4"})
    result = fastq.convert(tmp_path / "hf", tmp_path / "out.gguf")
    assert result.types["MXFP4"] == 6
    file = File(tmp_path / "out.gguf")
    values = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
    for name, (levels, scales) in codes.items():
        layer = name.split(".")[2]
        weights = values[levels] * np.repeat(np.exp2(scales.astype(np.float32) - 127), 32, axis=-1)
        parts = {"ffn_down_exps": weights}
        if name.endswith("gate_up_proj"):
            parts = {"ffn_gate_exps": weights[:, 0::2], "ffn_up_exps": weights[:, 1::2]}
        for part, expected in parts.items():
            tensor = file.tensors[f"blk.{layer}.{part}.weight"]
            assert np.array_equal(tensor.rows().reshape(tensor.shape), expected), part


# ------------------------------------------------------------------------------------------------------------ tokenizer
def test_merges_of_a_sentencepiece_model_give_its_scores(make: Make, tmp_path: Path) -> None:
    """tokenizer.json alone: the same tokens as with the scores."""
    source = make(**SMALL, vocabulary="spm")
    folder = hf.write(tmp_path / "hf", source)
    fastq.convert(folder, tmp_path / "a.gguf")
    meta = File(source).metadata
    tokens, scores = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.scores"]
    ids = {token: id for id, token in enumerate(tokens)}
    merges = sorted(
        (-scores[id], token[:at], token[at:])
        for token, id in ids.items()
        for at in range(1, len(token))
        if meta["tokenizer.ggml.token_type"][id] == 1 and token[:at] in ids and token[at:] in ids
    )
    model = {"type": "BPE", "vocab": ids, "merges": [[a, b] for _, a, b in merges], "byte_fallback": True, "unk_token": "<unk>"}
    steps = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    added = [{"id": id, "content": tokens[id], "special": True}
             for id, kind in enumerate(meta["tokenizer.ggml.token_type"]) if kind in (2, 3)]  # fmt: skip
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


# --------------------------------------------------------------------------------------------------------------- damage
def index(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
    return found


def with_index(folder: Path, change: Callable[[dict[str, str]], None]) -> None:
    whole = index(folder)
    change(whole["weight_map"])
    (folder / "model.safetensors.index.json").write_text(json.dumps(whole))


def with_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def header(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = sorted(folder.glob("*.safetensors"))[0]
    raw = path.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    entries = json.loads(raw[8 : 8 + length])
    change(entries)
    new = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + raw[8 + length :])


def first_of(entries: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(value for key, value in entries.items() if key != "__metadata__")
    return found


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "no such file"),
    "a configuration that is no JSON": (lambda f: (f / "config.json").write_text("{,}"), "config.json: expected JSON, found"),
    "nested without end": (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json: expected JSON, found"),
    "a number that is none": (lambda f: with_config(f, rms_norm_eps=float("inf")), "config.json: expected JSON, found"),
    "a number beyond f32": (lambda f: with_config(f, rms_norm_eps=1e60), '"rms_norm_eps" must be a finite number, found 1e60'),
    "a count that is text": (lambda f: with_config(f, num_hidden_layers="2"), '"num_hidden_layers" must be an integer .* found "2"'),
    "another class": (lambda f: with_config(f, architectures=["MambaForCausalLM"]), '"MambaForCausalLM" cannot be converted'),
    "other heads": (lambda f: with_config(f, num_attention_heads=4), r"attn_q.weight must have shape"),
    "heads that do not divide": (lambda f: with_config(f, num_key_value_heads=5), "multiple of 2 × 5 heads of rows"),
    "a layer too many": (lambda f: with_config(f, num_hidden_layers=3), "tensor blk.2.attn_norm.weight is missing"),
    "a layer too few": (lambda f: with_config(f, num_hidden_layers=1), "9 tensors are not known .* with 1 layers"),
    "an index that leaves the folder": (
        lambda f: with_index(f, lambda m: m.update({next(iter(m)): "../x.safetensors"})), "must name a file in the same folder"),
    "an index without a file": (
        lambda f: with_index(f, lambda m: m.update({next(iter(m)): "x.safetensors"})), "names .x.safetensors., which is not there"),
    "an index with another file": (
        lambda f: with_index(f, lambda m: m.update({next(iter(m)): sorted(m.values())[-1]})), "says that tensor .* is in"),
    "an index without a tensor": (lambda f: with_index(f, lambda m: m.pop(next(iter(m)))), "must list tensor"),
    "an index with a tensor too many": (
        lambda f: with_index(f, lambda m: m.update({"x": next(iter(m.values()))})), "says that tensor .x. is in .*, where it is not"),
    "overlapping tensors": (
        lambda f: header(f, lambda e: first_of(e)["data_offsets"].__setitem__(0, 4)), "header is not that of a safetensors file"),
    "a shape of another size": (
        lambda f: header(f, lambda e: first_of(e)["shape"].__setitem__(0, 3)), "header is not that of a safetensors file"),
    "a shape that overflows": (
        lambda f: header(f, lambda e: first_of(e).__setitem__("shape", [1 << 62, 1 << 62])), "header is not that of"),
    "a file that was cut off": (
        lambda f: os.truncate(p := sorted(f.glob("*.safetensors"))[0], p.stat().st_size - 5), "damaged or not complete"),
    "an empty file": (lambda f: os.truncate(sorted(f.glob("*.safetensors"))[0], 0), "damaged or not complete"),
    "a header beyond the file": (
        lambda f: (p := sorted(f.glob("*.safetensors"))[0]).write_bytes(b"\xff" * 8 + p.read_bytes()[8:]), "the header must have at most"),
    "a pipe": (lambda f: (sorted(f.glob("*.safetensors"))[0].unlink(), os.mkfifo(f / "model-00001-of-00002.safetensors")), "found a pipe"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "expected tokenizer.json, tokenizer.model"),
    "unknown rope": (lambda f: with_config(f, rope_scaling={"rope_type": "spiral"}), 'rope of type "spiral" is not supported'),
    "unknown quantization": (
        lambda f: with_config(f, quantization_config={"quant_method": "fp8"}), 'quantization method "fp8" is not supported'),
    "another activation": (lambda f: with_config(f, hidden_act="relu"), '"hidden_act" must be silu or swish .*, found "relu"'),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(name: str, make: Make, tmp_path: Path) -> None:
    folder = hf.write(tmp_path / "hf", make(**SMALL), shards=2)
    change, message = DAMAGE[name]
    change(folder)
    with pytest.raises((fastq.FastqError, FileNotFoundError), match=message):
        fastq.convert(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"model.layers.0.mlp.extra.weight": np.zeros(3, np.float32)}, "not known to be of a llama model"),
        (lambda t: {k: v for k, v in t.items() if "1.mlp.up" not in k}, "tensor blk.1.ffn_up.weight is missing"),
        (lambda t: t | {"model.norm.weight": np.full(64, np.nan, np.float32)}, 'tensor "model.norm.weight" must hold finite'),
        (lambda t: t | {"model.norm.weight": np.ones(65, np.float32)}, r"must have shape \[64\], found \[65\] \(made of model"),
        (lambda t: t | {"norm.weight": np.ones(64, np.float32)}, "are both output_norm.weight in GGUF"),
        (lambda t: t | {"model.norm.weight": np.ones(64, np.int32)}, "must be F32, F16 or BF16, found I32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[hf.Tensors], hf.Tensors], message: str, make: Make, tmp_path: Path
) -> None:
    folder = hf.write(tmp_path / "hf", make(**SMALL), change=change)
    with pytest.raises(fastq.FastqError, match=message):
        fastq.convert(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("method", PACK)
def test_parts_of_quantized_matrices_are_checked(method: str, make: Make, tmp_path: Path) -> None:
    """Each part in turn missing, cut, or of another type: an error, not a crash."""
    source = make(**SMALL)
    rng = np.random.default_rng(1)
    name = "model.layers.0.mlp.up_proj"
    grid = Grid(rng, 96, 64, 32, False)
    parts = PACK[method](name, grid, False)
    needless = {f"{name}.g_idx", f"{name}.weight_zero_point"}
    for part, data in parts.items():
        for number, other in enumerate([None, data.reshape(-1)[:-1], data.astype(np.uint8)]):
            if other is None and part in needless:
                continue
            own = {key: value for key, value in {**parts, part: other}.items() if value is not None}

            def change(tensors: hf.Tensors, own: hf.Tensors = own) -> hf.Tensors:
                del tensors[name + ".weight"]
                return tensors | own

            folder = hf.write(tmp_path / f"{part}{number}", source, change=change, **settings(method, 32))
            with pytest.raises(fastq.FastqError):
                fastq.convert(folder, tmp_path / "out.gguf")


def test_the_checkpoint_itself_is_not_overwritten(make: Make, tmp_path: Path) -> None:
    folder = hf.write(tmp_path / "hf", make(**SMALL))
    with pytest.raises(ValueError, match="is a part of the checkpoint"):
        fastq.convert(folder, folder / "model.safetensors")


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
