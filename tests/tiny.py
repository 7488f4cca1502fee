"""Writes small GGUF models with random weights: any shape of `llama` and `gemma3`, in every block format.

    python tests/tiny.py OUT.gguf --architecture gemma3 --format Q4_K --layers 7 --window 8
    python tests/tiny.py OUT.gguf --shape llama-3.2-1b --format Q4_K_M       # 16 layers of width 2048, in seconds

Needs numpy and the standard library only. The same options and seed give the same bytes.

Weights of quantized formats are random block bytes with a sensible scale, not quantized numbers: every bit of a block
is exercised, and writing costs no quantization.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from vocabularies import Vocabulary, bpe_vocabulary, spm_vocabulary

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

# GGUF value types
U8, U16, U32, I32, F32, BOOL, STRING, ARRAY = 0, 2, 4, 5, 6, 7, 8, 9
ALIGNMENT = 32

CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


# -------------------------------------------------------------------------------------------------------------- formats
@dataclass(frozen=True)
class Format:
    """A tensor type: its id in the file, weights per block, bytes per block, and where random bytes need a scale."""

    name: str
    type_id: int
    block: int
    size: int
    rms: float = 1.0
    """Root mean square of a weight in a random block whose `d` is 1."""
    d: int | None = None
    """Byte offset of the scale."""
    scale: Literal["f16", "e8m0", "ue4m3"] = "f16"
    """How the scale is stored; UE4M3 stands for four. The types with the last two double weights and halve scales."""
    minimum: tuple[int, float] | None = None
    """Byte offset of the f16 minimum, and the minimum that centres the weights when `d` is 1."""
    signed: bool = False
    """Whether a negative `d` is as good as a positive one."""
    spread: bool = False
    """Whether the nibbles of the scale are the upper halves of every other byte from `d` on, lowest first."""
    quantizes: bool = True
    """Whether the engine can make it from weights."""


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("F32", 0, 1, 4),
        Format("F16", 1, 1, 2),
        Format("BF16", 30, 1, 2),
        Format("Q4_0", 2, 32, 18, rms=4.64, d=0, signed=True),
        Format("Q4_1", 3, 32, 20, rms=4.61, d=0, minimum=(2, -7.5)),
        Format("Q5_0", 6, 32, 22, rms=9.25, d=0, signed=True),
        Format("Q5_1", 7, 32, 24, rms=9.23, d=0, minimum=(2, -15.5)),
        Format("Q8_0", 8, 32, 34, rms=73.9, d=0, signed=True),
        Format("Q2_K", 10, 256, 84, rms=13.9, d=80, minimum=(82, 1.5)),
        Format("Q3_K", 11, 256, 110, rms=43.3, d=108, signed=True),
        Format("Q4_K", 12, 256, 144, rms=258.3, d=0, minimum=(2, 7.5)),
        Format("Q5_K", 13, 256, 176, rms=526.9, d=0, minimum=(2, 15.5)),
        Format("Q6_K", 14, 256, 210, rms=1365.7, d=208, signed=True),
        Format("IQ1_S", 19, 256, 50, rms=7.2, d=0, signed=True, quantizes=False),
        Format("IQ1_M", 29, 256, 56, rms=7.2, d=49, signed=True, spread=True, quantizes=False),
        Format("IQ2_XXS", 16, 256, 66, rms=53.1, d=0, signed=True, quantizes=False),
        Format("IQ2_XS", 17, 256, 74, rms=55.7, d=0, signed=True, quantizes=False),
        Format("IQ2_S", 22, 256, 82, rms=56.5, d=0, signed=True, quantizes=False),
        Format("IQ3_XXS", 18, 256, 98, rms=142.1, d=0, signed=True, quantizes=False),
        Format("IQ3_S", 21, 256, 110, rms=140.4, d=0, signed=True, quantizes=False),
        Format("IQ4_NL", 20, 32, 18, rms=67.5, d=0, signed=True),
        Format("IQ4_XS", 23, 256, 136, rms=1246.1, d=0, signed=True),
        Format("TQ1_0", 34, 256, 54, rms=0.82, d=52, signed=True),
        Format("TQ2_0", 35, 256, 66, rms=1.22, d=64, signed=True),
        Format("MXFP4", 39, 32, 17, rms=5.85, d=0, scale="e8m0"),
        Format("NVFP4", 40, 64, 36, rms=5.85, d=0, scale="ue4m3"),
        Format("Q1_0", 41, 128, 18, rms=1.0, d=0, signed=True),
        Format("Q2_0", 42, 64, 18, rms=1.22, d=0, signed=True),
    )
}
# What llama-quantize takes when a row is no multiple of 256.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL",
            "TQ1_0": "Q4_0", "TQ2_0": "Q4_0"}  # fmt: skip
FALLBACK |= dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), "Q4_0")
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12,
              "Q4_K": 15, "Q4_K_M": 15, "Q5_K": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32, "TQ1_0": 36,
              "TQ2_0": 37, "MXFP4": 38, "NVFP4": 39, "Q1_0": 40, "Q2_0": 41, "IQ2_XXS": 19, "IQ2_XS": 20,
              "IQ3_XXS": 23, "IQ1_S": 24, "IQ3_S": 26, "IQ2_S": 28, "IQ1_M": 31}  # fmt: skip


def fitting(name: str, k: int) -> Format:
    """The format, or what takes its place for rows of `k` weights that its blocks do not divide."""
    chosen = FORMATS[name]
    if k % chosen.block and name in FALLBACK:
        chosen = FORMATS[FALLBACK[name]]
    return chosen if k % chosen.block == 0 else FORMATS["F16"]


def random_blocks(rng: np.random.Generator, form: Format, count: int, rms: float) -> Bytes:
    """Random blocks `(count, form.size)` whose weights have about this root mean square."""
    if form.d is None:
        return encode_floats(form, rng.standard_normal(count, dtype=np.float32) * np.float32(rms)).reshape(
            count, form.size
        )
    blocks = rng.integers(0, 256, size=(count, form.size), dtype=np.uint8)
    d = np.exp(rng.uniform(-0.5, 0.5, count)) * (rms / form.rms)
    if form.scale == "e8m0":
        blocks[:, form.d] = np.clip(np.round(np.log2(d)) + 128, 0, 252).astype(np.uint8)
        return blocks
    if form.scale == "ue4m3":
        # Half of every UE4M3 from 1 to 0x7e, which ascend.
        fraction, exponent = np.arange(1, 127) % 8, np.arange(1, 127) // 8
        values = np.where(exponent == 0, fraction / 1024, np.ldexp(1 + fraction / 8, exponent - 8))
        scales = d[:, None] * np.exp(rng.uniform(-0.3, 0.3, (count, 4)))
        blocks[:, form.d : form.d + 4] = np.clip(np.searchsorted(values, scales), 1, 126)
        return blocks
    if form.signed:
        d *= rng.choice((-1.0, 1.0), count)
    set_scale(form, blocks, d.astype("<f2"))
    if form.minimum is not None:
        at, centre = form.minimum
        blocks[:, at : at + 2] = (d * centre).astype("<f2")[:, None].view(np.uint8)
    return blocks


def set_scale(form: Format, blocks: Bytes, d: npt.NDArray[Any]) -> None:
    """Gives each block its `d`; values of two bytes."""
    assert form.d is not None
    if form.spread:
        bits = d.view("<u2")
        for i in range(4):
            at = blocks[:, form.d + 2 * i]
            at[:] = at & 15 | (bits >> 4 * i & 15).astype(np.uint8) << 4
    else:
        blocks[:, form.d : form.d + 2] = d[:, None].view(np.uint8)


def encode_floats(form: Format, x: Floats) -> Bytes:
    """Bytes of `x` in F32, F16 or BF16 (rounded to nearest even)."""
    if form.name == "F32":
        return x.astype("<f4").view(np.uint8)
    if form.name == "F16":
        return x.astype("<f2").view(np.uint8)
    bits = x.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").view(np.uint8)


# -------------------------------------------------------------------------------------------------------------- options
@dataclass(frozen=True, kw_only=True)
class Tiny:
    """What to write. `None` leaves a value to the architecture or to the other options."""

    architecture: Literal["llama", "gemma3"] = "llama"
    format: str = "F32"
    """A name of FORMATS, `Q4_K_M` (llama-quantize's mix) or `mixed` (every format in turn, tensor by tensor)."""
    embedding_format: str | None = None
    layers: int = 2
    width: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    """Default: `width / heads`."""
    ffn: int = 512
    vocabulary: Literal["spm", "bpe"] | None = None
    """Default: `bpe` for llama, `spm` for gemma3."""
    vocab_size: int | None = None
    """Padded with made-up tokens to this size."""
    tied: bool = True
    biases: Literal["none", "attention", "all"] = "none"
    rope_base: float = 10000.0
    rope_factors: bool = False
    rope_scaling: Literal["none", "linear", "yarn"] = "none"
    rope_factor: float = 4.0
    original_context: int | None = None
    context: int = 512
    window: int | None = None
    """Sliding window of gemma3's local layers. Default: 16."""
    final_softcap: float | None = None
    epsilon: float = 1e-5
    chat_template: str | None = CHAT_TEMPLATE
    seed: int = 0

    def size_of_head(self) -> int:
        if self.head_dim is not None:
            return self.head_dim
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads: head_dim is needed")
        return self.width // self.heads

    def check(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads are not divisible by {self.kv_heads} kv heads")
        if self.size_of_head() % 2:
            raise ValueError(f"rope needs an even head size, not {self.size_of_head()}")
        if self.format not in (*FORMATS, "Q4_K_M", "mixed"):
            raise ValueError(f"unknown format {self.format!r}")
        if self.architecture == "gemma3" and (self.biases != "none" or self.rope_factors):
            raise ValueError("gemma3 has neither biases nor rope factors")
        if self.architecture == "llama" and (self.window is not None or self.final_softcap is not None):
            raise ValueError("llama has neither a window nor a soft cap")


def llama_1b(**changes: Any) -> Tiny:
    """The shape of Llama-3.2-1B; the tied embedding is Q6_K in the 4-bit types, as llama-quantize makes it."""
    shape = Tiny(layers=16, width=2048, heads=32, kv_heads=8, head_dim=64, ffn=8192, vocab_size=128256,
                 rope_base=500000.0, rope_factors=True, context=131072, format="Q4_K_M")  # fmt: skip
    shape = dataclasses.replace(shape, **changes)
    if shape.embedding_format is None and shape.format not in ("Q8_0", "F32", "F16", "BF16"):
        shape = dataclasses.replace(shape, embedding_format="Q6_K")
    return shape


SHAPES: dict[str, Callable[..., Tiny]] = {"tiny": Tiny, "llama-3.2-1b": llama_1b}


# ------------------------------------------------------------------------------------------------------------- metadata
@dataclass(frozen=True)
class Pair:
    key: str
    kind: int
    value: Any
    item: int | None = None
    """Type of the items when `kind` is ARRAY."""


def vocabulary_of(shape: Tiny) -> Vocabulary:
    kind = shape.vocabulary or ("spm" if shape.architecture == "gemma3" else "bpe")
    return (
        bpe_vocabulary(shape.vocab_size)
        if kind == "bpe"
        else spm_vocabulary(shape.vocab_size, shape.architecture == "gemma3")
    )


def metadata(shape: Tiny, vocab: Vocabulary) -> list[Pair]:
    a = shape.architecture
    head = shape.size_of_head()
    pairs = [
        Pair("general.architecture", STRING, a),
        Pair("general.name", STRING, f"tiny random {a}"),
        Pair("general.file_type", U32, FILE_TYPES.get(shape.format, 0)),
        Pair("general.quantization_version", U32, 2),
        Pair(f"{a}.context_length", U32, shape.context),
        Pair(f"{a}.embedding_length", U32, shape.width),
        Pair(f"{a}.block_count", U32, shape.layers),
        Pair(f"{a}.feed_forward_length", U32, shape.ffn),
        Pair(f"{a}.attention.head_count", U32, shape.heads),
        Pair(f"{a}.attention.head_count_kv", U32, shape.kv_heads),
        Pair(f"{a}.attention.layer_norm_rms_epsilon", F32, shape.epsilon),
        Pair(f"{a}.rope.freq_base", F32, shape.rope_base),
        Pair(f"{a}.vocab_size", U32, len(vocab.tokens)),
    ]
    if a == "gemma3" or head * shape.heads != shape.width:
        pairs += [Pair(f"{a}.attention.key_length", U32, head), Pair(f"{a}.attention.value_length", U32, head)]
    if a == "llama":
        pairs += [Pair("llama.rope.dimension_count", U32, head)]
    else:
        pairs += [Pair("gemma3.attention.sliding_window", U32, shape.window or 16)]
    if shape.final_softcap is not None:
        pairs += [Pair(f"{a}.final_logit_softcapping", F32, shape.final_softcap)]
    if shape.rope_scaling != "none":
        original = shape.original_context or max(1, int(shape.context / shape.rope_factor))
        pairs += [
            Pair(f"{a}.rope.scaling.type", STRING, shape.rope_scaling),
            Pair(f"{a}.rope.scaling.factor", F32, shape.rope_factor),
            Pair(f"{a}.rope.scaling.original_context_length", U32, original),
        ]
    pairs += [
        Pair("tokenizer.ggml.model", STRING, "llama" if vocab.merges is None else "gpt2"),
        Pair("tokenizer.ggml.pre", STRING, "default" if vocab.merges is None else "llama-bpe"),
        Pair("tokenizer.ggml.tokens", ARRAY, vocab.tokens, STRING),
        Pair("tokenizer.ggml.token_type", ARRAY, vocab.types, I32),
    ]
    if vocab.scores is not None:
        pairs += [Pair("tokenizer.ggml.scores", ARRAY, vocab.scores, F32)]
    if vocab.merges is not None:
        pairs += [Pair("tokenizer.ggml.merges", ARRAY, vocab.merges, STRING)]
    pairs += [
        Pair("tokenizer.ggml.bos_token_id", U32, vocab.bos),
        Pair("tokenizer.ggml.eos_token_id", U32, vocab.eos),
        Pair("tokenizer.ggml.add_bos_token", BOOL, True),
        Pair("tokenizer.ggml.add_space_prefix", BOOL, a == "llama" and vocab.merges is None),
    ]
    if vocab.unknown is not None:
        pairs += [Pair("tokenizer.ggml.unknown_token_id", U32, vocab.unknown)]
    if shape.chat_template is not None:
        pairs += [Pair("tokenizer.chat_template", STRING, shape.chat_template)]
    return pairs


# -------------------------------------------------------------------------------------------------------------- tensors
@dataclass(frozen=True)
class Tensor:
    name: str
    rows: int | None
    """None: one dimension."""
    k: int
    form: Format
    kind: Literal["matrix", "norm", "bias", "factors"]
    rms: float = 1.0

    def blocks(self) -> int:
        return (self.rows or 1) * self.k // self.form.block

    def bytes(self) -> int:
        return self.blocks() * self.form.size


def more_bits(layer: int, layers: int) -> bool:
    """Whether Q4_K_M gives attn_v and ffn_down of this layer Q6_K."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def tensors_of(shape: Tiny, vocab_size: int) -> list[Tensor]:
    """The tensors in file order. Weights have the root mean square `gain / sqrt(k)`."""
    head, width, gemma = shape.size_of_head(), shape.width, shape.architecture == "gemma3"
    queries, keys = shape.heads * head, shape.kv_heads * head
    out: list[Tensor] = []
    turn = iter(range(1 << 30))

    def matrix(name: str, rows: int, k: int, gain: float = 1.0, form: str | None = None, rich: bool = False) -> None:
        chosen = form or shape.format
        if chosen == "mixed":
            chosen = list(FORMATS)[next(turn) % len(FORMATS)]
        elif chosen == "Q4_K_M":
            chosen = "Q6_K" if rich else "Q4_K"
        out.append(Tensor(name + ".weight", rows, k, fitting(chosen, k), "matrix", gain / k**0.5))

    def norm(name: str, k: int) -> None:
        out.append(Tensor(name + ".weight", None, k, FORMATS["F32"], "norm"))

    def bias(name: str, k: int) -> None:
        out.append(Tensor(name + ".bias", None, k, FORMATS["F32"], "bias", 0.3))

    matrix("token_embd", vocab_size, width, 2.0, shape.embedding_format, rich=shape.tied)
    if not shape.tied:
        matrix("output", vocab_size, width, 2.0, shape.embedding_format, rich=True)
    if shape.rope_factors:
        out.append(Tensor("rope_freqs.weight", None, head // 2, FORMATS["F32"], "factors"))
    for i in range(shape.layers):
        b, rich = f"blk.{i}.", more_bits(i, shape.layers)
        norm(b + "attn_norm", width)
        matrix(b + "attn_q", queries, width, 1.5)
        matrix(b + "attn_k", keys, width)
        matrix(b + "attn_v", keys, width, rich=rich)
        matrix(b + "attn_output", width, queries)
        if shape.biases != "none":
            for name, k in (("attn_q", queries), ("attn_k", keys), ("attn_v", keys), ("attn_output", width)):
                bias(b + name, k)
        if gemma:
            norm(b + "attn_q_norm", head)
            norm(b + "attn_k_norm", head)
            norm(b + "post_attention_norm", width)
        norm(b + "ffn_norm", width)
        matrix(b + "ffn_gate", shape.ffn, width)
        matrix(b + "ffn_up", shape.ffn, width)
        matrix(b + "ffn_down", width, shape.ffn, rich=rich)
        if shape.biases == "all":
            for name, k in (("ffn_gate", shape.ffn), ("ffn_up", shape.ffn), ("ffn_down", width)):
                bias(b + name, k)
        if gemma:
            norm(b + "post_ffw_norm", width)
    norm("output_norm", width)
    return out


TILE = 65521
"""Blocks of random data that are repeated in a larger tensor; a prime, so that no two rows are alike in phase."""


@functools.lru_cache(maxsize=8)
def _tile(form: Format, rms: float, seed: int) -> bytes:
    return random_blocks(np.random.default_rng([seed, form.type_id]), form, TILE, rms).tobytes()


def tensor_data(tensor: Tensor, rng: np.random.Generator, seed: int) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor in pieces."""
    if tensor.kind == "norm":
        yield (1 + 0.1 * rng.standard_normal(tensor.k)).astype("<f4").tobytes()
    elif tensor.kind == "factors":
        # As Llama 3.1: high frequencies stay, low ones are slowed eight times, with a ramp between.
        yield np.interp(np.arange(tensor.k), [tensor.k * 0.4, tensor.k * 0.7], [1.0, 8.0]).astype("<f4").tobytes()
    elif tensor.blocks() <= TILE * (32 if tensor.form.block == 1 else 1):
        yield random_blocks(rng, tensor.form, tensor.blocks(), tensor.rms).tobytes()
    else:
        tile = memoryview(_tile(tensor.form, tensor.rms, seed))
        left, at = tensor.bytes(), int(rng.integers(TILE)) * tensor.form.size
        while left:
            piece = tile[at : at + left]
            yield piece
            left, at = left - len(piece), 0


# --------------------------------------------------------------------------------------------------------------- writer
def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(kind: int, value: Any, item: int | None = None) -> bytes:
    if kind == STRING:
        return _string(value)
    if kind == ARRAY:
        assert item is not None
        head = struct.pack("<IQ", item, len(value))
        if item == STRING:
            return head + b"".join(map(_string, value))
        if item == U8:
            return head + bytes(value)
        return head + struct.pack(f"<{len(value)}{'i' if item == I32 else 'f'}", *value)
    return struct.pack({U16: "<H", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def _padding(n: int) -> bytes:
    return bytes(-n % ALIGNMENT)


def write_file(file: BinaryIO, pairs: list[Pair], tensors: list[tuple[int, Tensor]], seed: int) -> None:
    """Writes a GGUF v3 file with these tensors; a tensor's number decides its random weights."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs))
    head += b"".join(_string(p.key) + struct.pack("<I", p.kind) + _value(p.kind, p.value, p.item) for p in pairs)
    offset = 0
    for _, t in tensors:
        dims = [t.k] if t.rows is None else [t.k, t.rows]
        head += _string(t.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, t.form.type_id, offset)
        offset += t.bytes() + len(_padding(t.bytes()))
    file.write(head + _padding(len(head)))
    for number, t in tensors:
        file.writelines(tensor_data(t, np.random.default_rng([seed, number]), seed))
        file.write(_padding(t.bytes()))


def contents(shape: Tiny) -> tuple[list[Pair], list[tuple[int, Tensor]]]:
    """Metadata and numbered tensors of a model."""
    shape.check()
    vocab = vocabulary_of(shape)
    return metadata(shape, vocab), list(enumerate(tensors_of(shape, len(vocab.tokens))))


def _write_whole(path: Path, pairs: list[Pair], tensors: list[tuple[int, Tensor]], seed: int) -> None:
    """Writes a file that appears whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            write_file(file, pairs, tensors, seed)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], shape: Tiny | None = None) -> Path:
    """Writes a model to one file."""
    shape = shape or Tiny()
    _write_whole(Path(path), *contents(shape), shape.seed)
    return Path(path)


def write_split(stem: str | os.PathLike[str], shape: Tiny, shards: int) -> list[Path]:
    """Writes the same model to `STEM-00001-of-0000N.gguf` and so on; the first file holds the metadata."""
    pairs, tensors = contents(shape)
    paths = []
    for number in range(shards):
        path = Path(f"{os.fspath(stem)}-{number + 1:05d}-of-{shards:05d}.gguf")
        split = [
            Pair("split.no", U16, number),
            Pair("split.count", U16, shards),
            Pair("split.tensors.count", I32, len(tensors)),
        ]
        part = tensors[number * len(tensors) // shards : (number + 1) * len(tensors) // shards]
        _write_whole(path, (pairs if number == 0 else []) + split, part, shape.seed)
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="what the other options start from")
    shorter = {"architecture": ["--arch"], "format": ["--type"]}
    kinds: dict[str, Callable[[str], Any]] = {"int": int, "float": float}
    for field in dataclasses.fields(Tiny):
        flags = ["--" + field.name.replace("_", "-"), *shorter.get(field.name, [])]
        kind = str(field.type).split(" ")[0]
        if kind == "bool":
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            parser.add_argument(*flags, type=kinds.get(kind, str), default=argparse.SUPPRESS)
    options = vars(parser.parse_args())
    out, shape = options.pop("out"), SHAPES[options.pop("shape")](**options)
    path = write(out, shape)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
