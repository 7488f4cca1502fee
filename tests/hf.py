"""Checkpoints as transformers writes them, made of the tiny models of tests/tiny.py.

This is the way back from GGUF, written down independently of the conversion: what is converted from a checkpoint must
be the tiny model again.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reference.reader import File

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "uint16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint8": "U8",
}
"""NumPy has no bfloat16: its bits are uint16."""

CLASSES = {
    "llama": "LlamaForCausalLM", "mistral3": "Ministral3ForCausalLM", "smollm3": "SmolLM3ForCausalLM",
    "granite": "GraniteForCausalLM", "granitemoe": "GraniteMoeSharedForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "qwen3moe": "Qwen3MoeForCausalLM", "qwen35": "Qwen3_5ForCausalLM",
    "gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM", "phi2": "PhiForCausalLM",
    "phi3": "Phi3ForCausalLM", "olmo2": "Olmo3ForCausalLM", "olmoe": "OlmoeForCausalLM",
    "stablelm": "StableLmForCausalLM", "gpt-oss": "GptOssForCausalLM", "lfm2": "Lfm2ForCausalLM", "bert": "BertModel",
    "nomic-bert": "NomicBertModel",
}  # fmt: skip

COMMON = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "ffn_gate_inp": "mlp.gate", "ffn_gate_exps": "mlp.experts.@.gate_proj",
    "ffn_up_exps": "mlp.experts.@.up_proj", "ffn_down_exps": "mlp.experts.@.down_proj",
}  # fmt: skip
SANDWICH = {"post_attention_norm": "post_attention_layernorm", "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm"}  # fmt: skip
OWN: dict[str, dict[str, str]] = {
    "gemma2": SANDWICH,
    "gemma3": SANDWICH,
    "olmo2": SANDWICH,
    "phi2": {"output_norm": "model.final_layernorm", "attn_output": "self_attn.dense", "ffn_up": "mlp.fc1",
             "ffn_down": "mlp.fc2"},
    "phi3": {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    "granitemoe": {"ffn_gate_inp": "block_sparse_moe.router.layer", "ffn_down_exps": "block_sparse_moe.output_linear",
                   "ffn_down_shexp": "shared_mlp.output_linear"},
    "stablelm": {"attn_q_norm": "self_attn.q_layernorm.norms.@", "attn_k_norm": "self_attn.k_layernorm.norms.@"},
    "gpt-oss": {"post_attention_norm": "post_attention_layernorm", "ffn_gate_inp": "mlp.router"},
    "lfm2": {"token_embd_norm": "model.embedding_norm", "attn_norm": "operator_norm", "ffn_norm": "ffn_norm",
             "attn_output": "self_attn.out_proj", "attn_q_norm": "self_attn.q_layernorm",
             "attn_k_norm": "self_attn.k_layernorm", "ffn_gate": "feed_forward.w1", "ffn_up": "feed_forward.w3",
             "ffn_down": "feed_forward.w2", "shortconv.in_proj": "conv.in_proj", "shortconv.out_proj": "conv.out_proj",
             "shortconv.conv": "conv.conv"},
    "qwen35": {"post_attention_norm": "post_attention_layernorm", "attn_qkv": "linear_attn.in_proj_qkv",
               "attn_gate": "linear_attn.in_proj_z", "ssm_beta": "linear_attn.in_proj_b",
               "ssm_alpha": "linear_attn.in_proj_a", "ssm_conv1d": "linear_attn.conv1d", "ssm_norm": "linear_attn.norm",
               "ssm_out": "linear_attn.out_proj"},
    "bert": {"token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
             "position_embd": "embeddings.position_embeddings", "token_embd_norm": "embeddings.LayerNorm",
             "attn_q": "attention.self.query", "attn_k": "attention.self.key", "attn_v": "attention.self.value",
             "attn_output": "attention.output.dense", "attn_output_norm": "attention.output.LayerNorm",
             "ffn_up": "intermediate.dense", "ffn_down": "output.dense", "layer_output_norm": "output.LayerNorm"},
    "nomic-bert": {"token_embd": "embeddings.word_embeddings", "token_types": "embeddings.token_type_embeddings",
                   "token_embd_norm": "emb_ln", "attn_qkv": "attn.Wqkv", "attn_output": "attn.out_proj",
                   "attn_output_norm": "norm1", "ffn_up": "mlp.fc11", "ffn_gate": "mlp.fc12", "ffn_down": "mlp.fc2",
                   "layer_output_norm": "norm2"},
}  # fmt: skip
LAYERS = {"bert": "encoder.layer", "nomic-bert": "encoder.layers"}
PAIRED = ("llama", "mistral3", "smollm3", "granite", "granitemoe")
"""Architectures whose queries and keys were permuted."""


def bf16(values: Array) -> Array:
    """Bits of the nearest bfloat16 values."""
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path: Path, tensors: Mapping[str, Array]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, data in tensors.items():
        header[name] = {
            "dtype": DTYPES[data.dtype.name],
            "shape": list(data.shape),
            "data_offsets": [at, at + data.nbytes],
        }
        at += data.nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for data in tensors.values():
            file.write(np.ascontiguousarray(data).tobytes())


def write_sharded(folder: Path, tensors: Mapping[str, Array], shards: int) -> None:
    names = list(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = names[shard::shards]
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


# -------------------------------------------------------------------------------------------------------------- weights
def halves(rows: Array, heads: int) -> Array:
    """Rows of a head from pairs of neighbours back to two halves."""
    size = rows.shape[0] // heads
    found: Array = rows.reshape(heads, size // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)
    return found


def grouped(rows: Array, keys: int, heads: int, size: int) -> Array:
    """Rows of value heads from the order of broadcasting back to neighbours that share a key."""
    found: Array = rows.reshape(heads // keys, keys, size, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)
    return found


def weights_of(file: File) -> Tensors:
    """The tensors of a tiny model in F32, under the names of transformers."""
    meta = file.metadata
    arch = meta["general.architecture"]
    names = {**COMMON, **OWN.get(arch, {})}
    heads, kv_heads = meta[f"{arch}.attention.head_count"], meta[f"{arch}.attention.head_count_kv"]
    keys, values, state = (meta.get(f"{arch}.ssm.{key}", 0) for key in ("group_count", "time_step_rank", "state_size"))
    found: Tensors = {}
    fused: dict[str, dict[str, Array]] = {}
    for name, tensor in file.tensors.items():
        data: Array = tensor.rows().reshape(tensor.shape)
        layer, rest = "", name
        if match := re.match(r"blk\.(\d+)\.(.*)", name):
            layer, rest = f"{LAYERS.get(arch, 'model.layers')}.{match[1]}.", match[2]
        if rest == "ssm_a":
            log = np.log(-data.astype(np.float64)).astype(np.float32)
            found[layer + "linear_attn.A_log"] = grouped(log, keys, values, 1)
            continue
        if rest == "ssm_dt.bias":
            found[layer + "linear_attn.dt_bias"] = grouped(data, keys, values, 1)
            continue
        if rest == "attn_sinks.weight":
            found[layer + "self_attn.sinks"] = data
            continue
        stem, suffix = rest.rsplit(".", 1)
        halved = ("ffn_gate_exps", "ffn_up_exps", "ffn_gate_shexp", "ffn_up_shexp")
        if (arch == "gpt-oss" and stem.endswith("_exps")) or (arch == "granitemoe" and stem in halved):
            if arch == "granitemoe" or stem != "ffn_down_exps":
                kind = "shared_mlp" if stem.endswith("shexp") else "block_sparse_moe"
                place = layer + (f"mlp.experts.gate_up_proj|{suffix}" if arch == "gpt-oss" else f"{kind}.input_linear")
                fused.setdefault(place, {})[stem.split("_")[1]] = data
            elif suffix == "bias":
                found[layer + "mlp.experts.down_proj_bias"] = data
            else:
                found[layer + "mlp.experts.down_proj"] = data.swapaxes(1, 2)
            continue
        if arch in PAIRED and stem in ("attn_q", "attn_k"):
            data = halves(data, heads if stem == "attn_q" else kv_heads)
        if arch.startswith("gemma") and stem.endswith("_norm"):
            data = data - np.float32(1)
        if arch == "qwen35":
            if stem.endswith("_norm") and stem != "ssm_norm":
                data = data - np.float32(1)
            elif stem in ("attn_qkv", "ssm_conv1d"):
                mixed = 2 * keys * state
                data = np.concatenate([data[:mixed], grouped(data[mixed:], keys, values, state)])
            elif stem == "attn_gate":
                data = grouped(data, keys, values, state)
            elif stem in ("ssm_alpha", "ssm_beta"):
                data = grouped(data, keys, values, 1)
            elif stem == "ssm_out":
                data = grouped(data.T, keys, values, state).T
        if stem in ("ssm_conv1d", "shortconv.conv"):
            data = data[:, None, :]
        target = names[stem]
        if "@" in target:
            for number, part in enumerate(data):
                found[f"{layer}{target.replace('@', str(number))}.{suffix}"] = part
        else:
            found[f"{layer}{target}.{suffix}"] = data
    for place, parts in fused.items():
        if arch == "gpt-oss":
            module, suffix = place.split("|")
            both: Array = np.stack([parts["gate"], parts["up"]], axis=2)
            if suffix == "bias":
                found[module + "_bias"] = both.reshape(len(both), -1)
            else:
                found[module] = both.reshape(len(both), -1, both.shape[-1]).swapaxes(1, 2)
        else:
            found[place + ".weight"] = np.concatenate([parts["gate"], parts["up"]], axis=-2)
    return found


# -------------------------------------------------------------------------------------------------------- configuration
def config_of(file: File) -> dict[str, Any]:
    meta = file.metadata
    arch = meta["general.architecture"]

    def get(key: str, default: Any = None) -> Any:
        return meta.get(f"{arch}.{key}", default)

    layers = get("block_count")
    kv_heads = get("attention.head_count_kv")
    config: dict[str, Any] = {
        "architectures": [CLASSES[arch]],
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": max(kv_heads) if isinstance(kv_heads, list) else kv_heads,
        "max_position_embeddings": get("context_length"),
        "vocab_size": get("vocab_size"),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "layer_norm_eps": get("attention.layer_norm_epsilon"),
        "rope_theta": get("rope.freq_base"),
        "head_dim": get("attention.key_length"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "sliding_window": get("attention.sliding_window"),
        "attn_logit_softcapping": get("attn_logit_softcapping"),
        "final_logit_softcapping": get("final_logit_softcapping"),
        "attention_multiplier": get("attention.scale"),
        "embedding_multiplier": get("embedding_scale"),
        "residual_multiplier": get("residual_scale"),
        "logits_scaling": get("logit_scale"),
        "num_local_experts": get("expert_count"),
        "num_experts_per_tok": get("expert_used_count"),
        "moe_intermediate_size": get("expert_feed_forward_length"),
        "shared_intermediate_size": get("expert_shared_feed_forward_length"),
    }
    head = get("attention.key_length", config["hidden_size"] // config["num_attention_heads"])
    if (turning := get("rope.dimension_count", head)) != head:
        config["partial_rotary_factor"] = turning / head
    rope: dict[str, Any] = {}
    if (kind := get("rope.scaling.type")) in ("linear", "yarn"):
        rope = {"rope_type": kind, "factor": get("rope.scaling.factor")}
        if kind == "yarn":
            rope["original_max_position_embeddings"] = get("rope.scaling.original_context_length")
            usual = 1 + 0.1 * np.log(rope["factor"])
            if (factor := get("rope.scaling.attn_factor")) is not None:
                rope["attention_factor"] = float(factor * usual)
    if "rope_factors_long.weight" in file.tensors:
        rope = {"rope_type": "longrope", "attention_factor": get("rope.scaling.attn_factor")}
        for length in ("long", "short"):
            rope[f"{length}_factor"] = file.tensors[f"rope_factors_{length}.weight"].rows()[0].tolist()
        config["original_max_position_embeddings"] = get("rope.scaling.original_context_length")
    if arch == "mistral3" and get("attention.temperature_scale") is not None:
        rope["llama_4_scaling_beta"] = get("attention.temperature_scale")
        rope["mscale"] = rope["mscale_all_dim"] = get("rope.scaling.yarn_log_multiplier")
    if rope:
        config["rope_parameters"] = rope
    if arch == "olmo2":
        pattern = get("attention.sliding_window_pattern", [False] * layers)
        config["layer_types"] = ["sliding_attention" if local else "full_attention" for local in pattern]
    if isinstance(pattern := get("attention.sliding_window_pattern"), int):
        config["sliding_window_pattern"] = pattern
    if arch == "stablelm":
        config["use_parallel_residual"] = "blk.0.ffn_norm.weight" not in file.tensors
    if arch == "lfm2":
        config |= {"conv_L_cache": get("shortconv.l_cache"), "block_auto_adjust_ff_dim": False,
                   "layer_types": ["full_attention" if heads else "conv" for heads in kv_heads]}  # fmt: skip
    if arch == "qwen35":
        config |= {
            "linear_conv_kernel_dim": get("ssm.conv_kernel"), "linear_key_head_dim": get("ssm.state_size"),
            "linear_value_head_dim": get("ssm.state_size"), "linear_num_key_heads": get("ssm.group_count"),
            "linear_num_value_heads": get("ssm.time_step_rank"),
            "rope_parameters": {"rope_type": "default", "mrope_section": get("rope.dimension_sections")[:3]},
        }  # fmt: skip
        if (recurrent := get("attention.recurrent_layers")) is not None:
            config["layer_types"] = ["linear_attention" if state else "full_attention" for state in recurrent]
    if arch == "qwen3moe":
        config["norm_topk_prob"] = True
    if arch in ("bert", "nomic-bert"):
        config["type_vocab_size"] = meta["tokenizer.ggml.token_type_count"]
    return {key: value for key, value in config.items() if value is not None}


# ------------------------------------------------------------------------------------------------------------ tokenizer
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
FRONT = r"[^\r\n\p{L}\p{N}]?"
LLAMA3 = CONTRACTION + "|" + FRONT + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + SPACES
QWEN2 = LLAMA3.replace("{1,3}", "")


def cased(contraction: str, numbers: str) -> str:
    words = f"{FRONT}{UPPER}*{LOWER}+{contraction}|{FRONT}{UPPER}+{LOWER}*{contraction}|{numbers}"
    return words + r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + SPACES


REGEXES = {
    "llama-bpe": LLAMA3, "lfm2": LLAMA3, "dbrx": LLAMA3, "qwen2": QWEN2, "stablelm2": QWEN2,
    "qwen35": CONTRACTION + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + SPACES,
    "gpt-4o": cased(CONTRACTION + "?", r"\p{N}{1,3}"), "tekken": cased("", r"\p{N}"),
}  # fmt: skip


def message(*fields: tuple[int, Any]) -> bytes:
    """Fields of a message of Protocol Buffers: integers, floats and bytes."""

    def varint(value: int) -> bytes:
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def write_tokenizer(folder: Path, meta: Mapping[str, Any]) -> None:
    model, tokens = meta["tokenizer.ggml.model"], meta["tokenizer.ggml.tokens"]
    types = meta["tokenizer.ggml.token_type"]
    special = {key: meta.get(f"tokenizer.ggml.{name}_token_id") for key, name in
               {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding", "cls": "cls", "sep": "seperator",
                "mask": "mask"}.items()}  # fmt: skip
    config: dict[str, Any] = {f"{key}_token": tokens[number] for key, number in special.items() if number is not None}
    config["add_bos_token"] = meta["tokenizer.ggml.add_bos_token"]
    if template := meta.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template)
    if model == "llama":
        pieces = [message((1, token.encode()), (2, float(score)), (3, kind))
                  for token, score, kind in zip(tokens, meta["tokenizer.ggml.scores"], types, strict=True)]  # fmt: skip
        prefix = int(meta["tokenizer.ggml.add_space_prefix"])
        raw = message(*((1, piece) for piece in pieces), (2, message((3, 2))), (3, message((3, prefix))))
        (folder / "tokenizer.model").write_bytes(raw)
    elif model == "bert":
        plain = [token if kind == 3 else token[1:] if token[0] == "▁" else "##" + token
                 for token, kind in zip(tokens, types, strict=True)]  # fmt: skip
        (folder / "vocab.txt").write_text("\n".join(plain) + "\n")
    else:
        pre = meta["tokenizer.ggml.pre"]
        steps: list[dict[str, Any]] = []
        if pre == "refact":
            steps.append({"type": "Digits", "individual_digits": True})
        if pre in REGEXES:
            steps.append({"type": "Split", "pattern": {"Regex": REGEXES[pre]}, "behavior": "Isolated", "invert": False})
        steps.append({"type": "ByteLevel", "add_prefix_space": False, "use_regex": pre not in REGEXES})
        added = [{"id": number, "content": token, "special": True}
                 for number, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind == 3]  # fmt: skip
        bpe = {
            "type": "BPE",
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": meta["tokenizer.ggml.merges"],
            "ignore_merges": pre in ("llama-bpe", "lfm2", "tekken"),
        }
        whole = {"model": bpe, "added_tokens": added, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
        (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write(
    folder: Path,
    gguf: Path,
    *,
    change: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    shards: int = 1,
    **config: Any,
) -> Path:
    """Writes the checkpoint that a tiny model would come of. `change` sees the tensors, `config` replaces settings."""
    folder.mkdir(parents=True, exist_ok=True)
    file = File(gguf)
    tensors = change(weights_of_without_factors(file))
    if shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
    else:
        write_sharded(folder, tensors, shards)
    settings = {**config_of(file), **config}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))
    write_tokenizer(folder, file.metadata)
    if (pooling := file.metadata.get(f"{file.metadata['general.architecture']}.pooling_type")) is not None:
        mode = {1: "pooling_mode_mean_tokens", 2: "pooling_mode_cls_token", 3: "pooling_mode_lasttoken"}[pooling]
        (folder / "modules.json").write_text(json.dumps([{"type": "x.Transformer", "path": ""},
                                                         {"type": "x.Pooling", "path": "1_Pooling"}]))  # fmt: skip
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))
    return folder


def weights_of_without_factors(file: File) -> Tensors:
    """Factors of rope are no tensors there: they follow from the configuration."""
    kept = File(file.path)
    for name in [name for name in kept.tensors if name.startswith("rope_f")]:
        del kept.tensors[name]
    return weights_of(kept)
