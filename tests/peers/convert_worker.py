"""Small random models of transformers with tokenizers that were trained on a text, as checkpoints.

In the Python that has torch, transformers and tokenizers: `python -I convert_worker.py FOLDER TEXT < names.json`.

Each folder also gets `expected.npz`: the logits (or hidden states) of transformers for `tokens`, in float32, and what
the tokenizer makes of some texts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TOKENS = 60
CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
SLASH = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def cased(contraction: str, numbers: str) -> str:
    front = r"[^\r\n\p{L}\p{N}]?"
    return f"{front}{UPPER}*{LOWER}+{contraction}|{front}{UPPER}+{LOWER}*{contraction}|{numbers}{SLASH}"


REGEXES = {
    "llama3": CONTRACTION + "|" + WORDS + r"|\p{N}{1,3}" + REST,
    "qwen2": CONTRACTION + "|" + WORDS + r"|\p{N}" + REST,
    "qwen35": CONTRACTION
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-4o": cased(CONTRACTION + "?", r"\p{N}{1,3}"),
    "tekken": cased("", r"\p{N}"),
}
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]


def byte_level(kind: str, lines: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    steps: list[Any]
    if kind == "gpt2":
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif kind == "digits":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        steps = [
            pre_tokenizers.Split(Regex(REGEXES[kind]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    if kind == "llama3":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def marked(lines: list[str], size: int, prefix: bool) -> Tokenizer:
    """BPE as it is made of a SentencePiece model."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    steps: list[Any] = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    special = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    # Words are cut in front of spaces only while training, so that pieces are those of words.
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    raw = json.loads(tokenizer.to_str())
    raw["pre_tokenizer"] = None
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["id"] < len(SPECIAL)]
    raw["post_processor"] = json.loads(
        processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)]).__getstate__()
    )
    return Tokenizer.from_str(json.dumps(raw))


def word_piece(lines: list[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        lines, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "vocab_size": 640,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
}
EXPERTS = {"num_experts": 6, "num_local_experts": 6, "num_experts_per_tok": 2}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.0 + 0.1 * i for i in range(12)],
        "short_factor": [1.0 + 0.02 * i for i in range(12)]}  # fmt: skip
DELTA = {"linear_conv_kernel_dim": 4, "linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_num_key_heads": 2,
         "linear_num_value_heads": 4, "head_dim": 32, "num_hidden_layers": 4}  # fmt: skip

# Class of the configuration, tokenizer, options.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("Llama", "llama3", {"attention_bias": True, "mlp_bias": True}),
    "llama, llama3 rope, tied": ("Llama", "llama3", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "llama, yarn": ("Llama", "digits", {"rope_parameters": YARN}),
    "llama, yarn with a factor": ("Llama", "llama3", {"rope_parameters": {**YARN, "attention_factor": 0.9}}),
    "llama, linear": ("Llama", "spm", {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 3.0}}),
    "mistral": ("Mistral", "spm", {"head_dim": 32, "sliding_window": None}),
    "mixtral": ("Mixtral", "spm", {**EXPERTS, "sliding_window": None}),
    "ministral3": ("Ministral3", "tekken", {"head_dim": 32, "sliding_window": None, "rope_parameters": {
        **YARN, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}),
    "qwen2": ("Qwen2", "qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", "qwen2", {"head_dim": 32}),
    "qwen3moe": ("Qwen3Moe", "qwen2", {**EXPERTS, "moe_intermediate_size": 48, "norm_topk_prob": True, "head_dim": 32}),
    "qwen35": ("Qwen3_5Text", "qwen35", DELTA),
    "gemma": ("Gemma", "gemma", {"head_dim": 32}),
    "gemma2": ("Gemma2", "gemma", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16}),
    "gemma3": ("Gemma3Text", "gemma", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16,
                                      "num_hidden_layers": 7}),
    "phi2": ("Phi", "gpt2", {"num_key_value_heads": 4, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", "spm", {"sliding_window": None}),
    "phi3, long factors": ("Phi3", "gpt-4o", {"sliding_window": None, "rope_parameters": {
        **LONG, "original_max_position_embeddings": 32}}),
    "phi3, short factors": ("Phi3", "gpt-4o", {"sliding_window": None, "rope_parameters": {
        **LONG, "original_max_position_embeddings": 64}}),
    "smollm3": ("SmolLM3", "llama3", {"num_hidden_layers": 5, "use_sliding_window": False}),
    "granite": ("Granite", "digits", {"attention_multiplier": 0.2, "embedding_multiplier": 3.0,
                                     "residual_multiplier": 0.6, "logits_scaling": 3.0, "attention_bias": True}),
    "granitemoe": ("GraniteMoeShared", "digits", {**EXPERTS, "attention_multiplier": 0.2, "embedding_multiplier": 3.0,
                                                 "residual_multiplier": 0.6, "logits_scaling": 3.0,
                                                 "shared_intermediate_size": 72}),
    "olmo2": ("Olmo2", "llama3", {}),
    "olmo3": ("Olmo3", "llama3", {"sliding_window": 16, "num_hidden_layers": 4}),
    "olmoe": ("Olmoe", "gpt2", {**EXPERTS, "num_key_value_heads": 4, "norm_topk_prob": False}),
    "stablelm": ("StableLm", "qwen2", {"use_qkv_bias": True, "partial_rotary_factor": 0.25}),
    "stablelm, parallel": ("StableLm", "qwen2", {"use_parallel_residual": True, "qk_layernorm": True}),
    "gpt-oss": ("GptOss", "gpt-4o", {**EXPERTS, "head_dim": 32, "sliding_window": 16, "rope_parameters": {
        **YARN, "rope_theta": 150000.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}}),
    "lfm2": ("Lfm2", "llama3", {"layer_types": ["conv", "full_attention", "conv"], "conv_L_cache": 3}),
    "bert": ("Bert", "wordpiece", {"num_key_value_heads": 4}),
}  # fmt: skip


def tokenizer_of(kind: str, lines: list[str]) -> Tokenizer:
    if kind == "wordpiece":
        return word_piece(lines, 600)
    if kind in ("spm", "gemma"):
        return marked(lines, 620, kind == "spm")
    return byte_level(kind, lines, 600)


def write(folder: Path, name: str, lines: list[str], texts: list[str]) -> None:
    family, kind, options = MODELS[name]
    torch.manual_seed(len(name))
    config = getattr(transformers, family + "Config")(**{**SIZES, **options})
    config._attn_implementation = "eager"
    auto = transformers.AutoModel if kind == "wordpiece" else transformers.AutoModelForCausalLM
    model = auto.from_config(config).float().eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            noise = torch.randn_like(weight)
            if "norm" in key.lower() and weight.ndim == 1:
                # Gemmas keep the distance from 1, the others the weight itself: either way it is disturbed.
                weight.add_(0.1 * noise)
            elif weight.ndim == 1:
                weight.copy_(0.3 * noise)
            else:
                weight.copy_(noise / weight.shape[-1] ** 0.5)
    model.save_pretrained(folder)
    tokenizer = tokenizer_of(kind, lines)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]", "pad_token": "[PAD]"}
    named = special if kind == "wordpiece" else {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    if kind == "wordpiece":
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
        (folder / "modules.json").write_text(json.dumps([{"type": "x.Pooling", "path": "1_Pooling"}]))
    tokens = np.random.default_rng(len(name)).integers(6, 600, TOKENS)
    with torch.no_grad():
        found = model(torch.tensor(tokens[None]))
    expected = found.last_hidden_state if kind == "wordpiece" else found.logits
    encoded = [tokenizer.encode(text).ids for text in texts]
    np.savez(
        folder / "expected.npz",
        tokens=tokens,
        expected=expected[0].numpy(),
        ids=np.concatenate([np.array(ids, np.int64) for ids in encoded]),
        lengths=np.array([len(ids) for ids in encoded]),
    )


def main() -> None:
    out, text = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.strip()]
    request = json.load(sys.stdin)
    for number, name in request["models"].items():
        folder = out / number
        folder.mkdir()
        try:
            write(folder, name, lines[:3000], request["texts"])
        except Exception as error:  # a class or an option that this version does not have
            (folder / "failed.txt").write_text(f"{type(error).__name__}: {error}"[:300])


if __name__ == "__main__":
    main()
