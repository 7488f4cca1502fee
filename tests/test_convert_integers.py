"""Checkpoints that others have quantized: integers stay, what has no place becomes floats and is told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import fastq
import hf
from conftest import Make
from reference.reader import File

Array = npt.NDArray[Any]

SMALL: dict[str, Any] = {"width": 64, "heads": 2, "kv_heads": 2, "ffn": 96, "context": 128}


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


GROUP = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


class Grid:
    """A matrix of random integers with scales and zeros per group."""

    def __init__(
        self, rng: np.random.Generator, shape: tuple[int, ...], group: int, symmetric: bool, bits: int = 4
    ) -> None:
        rows, k = shape
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
    return {
        f"{name}.weight": words(grid.levels, 1).view(np.uint32),
        f"{name}.scales": grid.scales,
        f"{name}.biases": biases,
    }


def settings(method: str, group: int, bits: int = 4) -> dict[str, Any]:
    if method == "mlx":
        return {"quantization": {"group_size": group, "bits": bits}}
    if method == "compressed":
        weights = {"num_bits": bits, "group_size": group, "type": "int", "strategy": "group"}
        groups = {"group_0": {"weights": weights, "targets": ["Linear"]}}
        whole = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
        return {"quantization_config": whole}
    own: dict[str, Any] = {"quant_method": method.split("_")[0], "bits": bits, "group_size": group}
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
                grids[name] = Grid(rng, data.shape, group, symmetric)
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
        bound = 0 if symmetric else np.abs(grid.scales.astype(np.float32) * grid.zeros).max() * 2**-10.9
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
        ({"bits": 8}, "8 bits in groups of 32: only four bits have a block format with the same integers"),
        ({"bits": 2}, "2 bits in groups of 32: only four bits have a block format with the same integers"),
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
        grid = Grid(rng, tensors.pop(name + ".weight").shape, group, False, bits)
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
    assert [(note.subject, note.text) for note in result.notes] == [
        (name + ".weight", f"its integers are not kept: {why}")
    ]
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


@pytest.mark.parametrize("method", PACK)
def test_parts_of_quantized_matrices_are_checked(method: str, make: Make, tmp_path: Path) -> None:
    """Each part in turn missing, cut, or of another type: an error, not a crash."""
    source = make(**SMALL)
    rng = np.random.default_rng(1)
    name = "model.layers.0.mlp.up_proj"
    grid = Grid(rng, (96, 64), 32, False)
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
