"""Damaged and contradictory checkpoints: an error that names file, key or tensor, and nothing is written."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastq
import hf
from conftest import Make

SMALL: dict[str, Any] = {"width": 64, "heads": 2, "kv_heads": 2, "ffn": 96, "context": 128}


def index(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
    return found


def with_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
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


def pipe(folder: Path) -> None:
    (folder / "model-00001-of-00002.safetensors").unlink()
    os.mkfifo(folder / "model-00001-of-00002.safetensors")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "no such file"),
    "a configuration that is no JSON": (
        lambda f: (f / "config.json").write_text("{,}"),
        "config.json: expected JSON, found",
    ),
    "nested without end": (
        lambda f: (f / "config.json").write_text("[" * 100_000),
        "config.json: expected JSON, found",
    ),
    "a number that is none": (lambda f: with_config(f, rms_norm_eps=float("inf")), "config.json: expected JSON, found"),
    "a number beyond f32": (
        lambda f: with_config(f, rms_norm_eps=1e60),
        '"rms_norm_eps" must be a finite number, found 1e[+]60',
    ),
    "a count that is text": (
        lambda f: with_config(f, num_hidden_layers="2"),
        '"num_hidden_layers" must be an integer .* found "2"',
    ),
    "another class": (
        lambda f: with_config(f, architectures=["MambaForCausalLM"]),
        '"MambaForCausalLM" cannot be converted',
    ),
    "other heads": (lambda f: with_config(f, num_attention_heads=4), r"attn_k.weight must have shape"),
    "heads that do not divide": (lambda f: with_config(f, num_key_value_heads=5), "multiple of 2 × 5 heads of rows"),
    "a layer too many": (lambda f: with_config(f, num_hidden_layers=3), "tensor blk.2.attn_norm.weight is missing"),
    "a layer too few": (lambda f: with_config(f, num_hidden_layers=1), "9 tensors are not known .* with 1 layers"),
    "an index that leaves the folder": (
        lambda f: with_index(f, lambda m: m.update({next(iter(m)): "../x.safetensors"})),
        "must name a file in the same folder",
    ),
    "an index without a file": (
        lambda f: with_index(f, lambda m: m.update({next(iter(m)): "x.safetensors"})),
        "names .x.safetensors., which is not there",
    ),
    "an index with another file": (
        lambda f: with_index(f, lambda m: m.update({next(iter(m)): sorted(m.values())[-1]})),
        "says that tensor .* is in",
    ),
    "an index without a tensor": (lambda f: with_index(f, lambda m: m.pop(next(iter(m)))), "must list tensor"),
    "an index with a tensor too many": (
        lambda f: with_index(f, lambda m: m.update({"x": next(iter(m.values()))})),
        "says that tensor .x. is in .*, where it is not",
    ),
    "overlapping tensors": (
        lambda f: header(f, lambda e: first_of(e)["data_offsets"].__setitem__(0, 4)),
        "header is not that of a safetensors file",
    ),
    "a shape of another size": (
        lambda f: header(f, lambda e: first_of(e)["shape"].__setitem__(0, 3)),
        "header is not that of a safetensors file",
    ),
    "a shape that overflows": (
        lambda f: header(f, lambda e: first_of(e).__setitem__("shape", [1 << 62, 1 << 62])),
        "header is not that of",
    ),
    "a file that was cut off": (
        lambda f: os.truncate(p := sorted(f.glob("*.safetensors"))[0], p.stat().st_size - 5),
        "damaged or not complete",
    ),
    "an empty file": (lambda f: os.truncate(sorted(f.glob("*.safetensors"))[0], 0), "damaged or not complete"),
    "a header beyond the file": (
        lambda f: (p := sorted(f.glob("*.safetensors"))[0]).write_bytes(b"\xff" * 8 + p.read_bytes()[8:]),
        "the header must have at most",
    ),
    "a pipe": (pipe, "found a pipe"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "expected tokenizer.json, tokenizer.model"),
    "unknown rope": (
        lambda f: with_config(f, rope_scaling={"rope_type": "spiral"}),
        'rope of type "spiral" is not supported',
    ),
    "unknown quantization": (
        lambda f: with_config(f, quantization_config={"quant_method": "fp8"}),
        'quantization method "fp8" is not supported',
    ),
    "another activation": (
        lambda f: with_config(f, hidden_act="relu"),
        '"hidden_act" must be silu or swish .*, found "relu"',
    ),
}


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
        (
            lambda t: t | {"model.layers.0.mlp.extra.weight": np.zeros(3, np.float32)},
            "not known to be of a llama model",
        ),
        (lambda t: {k: v for k, v in t.items() if "1.mlp.up" not in k}, "tensor blk.1.ffn_up.weight is missing"),
        (
            lambda t: t | {"model.norm.weight": np.full(64, np.nan, np.float32)},
            'tensor "model.norm.weight" must hold finite',
        ),
        (
            lambda t: t | {"model.norm.weight": np.ones(65, np.float32)},
            r"must have shape \[64\], found \[65\] \(made of model",
        ),
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


def test_the_checkpoint_itself_is_not_overwritten(make: Make, tmp_path: Path) -> None:
    folder = hf.write(tmp_path / "hf", make(**SMALL))
    with pytest.raises(ValueError, match="is a part of the checkpoint"):
        fastq.convert(folder, folder / "model.safetensors")
