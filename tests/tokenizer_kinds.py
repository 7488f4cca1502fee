"""A vocabulary of every kind of tokenizer, made on the spot, and the texts that they are compared on.

The vocabularies of byte pairs are trained until every text would be one token if nothing cut it, and so would be every
piece of the same texts cut by chance. So a cut that a pre-tokenizer makes, or does not make, shows in the tokens.

What llama.cpp makes of the texts is in `reference/tokenizers.json`; `peers/tokenizers.py` makes it anew.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import struct
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import tiny
from tiny import ARRAY, BOOL, F32, I32, STRING, U8, U32, Pair
from vocabularies import BYTE, CONTROL, NORMAL, UNKNOWN, Vocabulary, byte_letters

USER_DEFINED, UNUSED = 4, 5
REFERENCE = Path(__file__).parent / "reference" / "tokenizers.json"

# Every name that llama.cpp 0.3.36 knows but `whitespace`.
PRE_TOKENIZERS = [
    "default",
    "minicpm5",
    "llama3",
    "llama-v3",
    "llama-bpe",
    "falcon3",
    "falcon-h1",
    "pixtral",
    "midm-2.0",
    "lfm2",
    "jina-v5-nano",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "spark2_5",
    "youtu",
    "falcon",
    "mpt",
    "starcoder",
    "gpt-2",
    "phi-2",
    "jina-es",
    "jina-de",
    "gigachat",
    "jina-v2-es",
    "jina-v2-de",
    "a.x-4.0",
    "mellum",
    "modern-bert",
    "jais-2",
    "gemma4",
    "granite-embed-multi-311m",
    "sarvam-moe",
    "jina-v1-en",
    "jina-v2-code",
    "roberta-bpe",
    "refact",
    "command-r",
    "qwen2",
    "deepseek-r1-qwen",
    "kormo",
    "f2llmv2",
    "qwen35",
    "stablelm2",
    "olmo",
    "dbrx",
    "smaug-bpe",
    "poro-chat",
    "chatglm-bpe",
    "glm4",
    "glm5",
    "viking",
    "jais",
    "tekken",
    "smollm",
    "codeshell",
    "bloom",
    "gpt3-finnish",
    "exaone",
    "exaone4",
    "exaone-moe",
    "chameleon",
    "minerva-7b",
    "megrez",
    "gpt-4o",
    "llama4",
    "kanana2",
    "talkie",
    "granite-embed-multi-97m",
    "tiny_aya",
    "cohere2moe",
    "superbpe",
    "trillion",
    "granite-docling",
    "bailingmoe",
    "bailingmoe2",
    "llada-moe",
    "seed-coder",
    "hunyuan",
    "hunyuan-dense",
    "hy_v4",
    "joyai-llm",
    "kimi-k2",
    "ufakzeka",
    "grok-2",
    "afmoe",
    "laguna",
    "minimax-m2",
    "solar-open",
    "mellum2",
]
OF_CHARACTERS = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")


# ---------------------------------------------------------------------------------------------------------------- texts
WRITTEN: list[str] = json.loads((Path(__file__).parent / "reference" / "tokenizer_texts.json").read_text())

ALPHABET = [
    *"abcdeABCDEstSTLlREreVve", *"0123456789", *"     ", *"'’\"`", *".,;:!?-_/\\()[]{}<>|@#$%^&*+=~",
    *"\t\n\r\n\v\f", *"éÉßñöÅçøſ", *"\u0301\u0308\u0323\u093f\u0e31\u064e\u20e3", *"жЖяёΩωσ",
    *"中文一龥〇豈𠮷㐀", *"ひカ゛ーｶ", *"한글ㄱᄀ", *"אبم१٣๑५", *"ไทยက", *"😀👍🏽❤️\u200d",
    *"\u00a0\u3000\u2003\u2028\u0085\u200b\u00ad", *"½²Ⅷ①", *"、。，！？…「」।،", *"€°→∑©", *"ǅʰªˈ",
    *"\u0001\u007f\ufffd\ue000",
]  # fmt: skip


def numbers(seed: int) -> Iterator[int]:
    """Pseudo-random numbers that are the same in every version of Python."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 33


def random_texts(count: int, seed: int = 1) -> list[str]:
    draw = numbers(seed)
    return ["".join(ALPHABET[next(draw) % len(ALPHABET)] for _ in range(3 + next(draw) % 30)) for _ in range(count)]


TEXTS = WRITTEN + random_texts(100)


# --------------------------------------------------------------------------------------------------------- vocabularies
def train(words: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Byte pair encoding: merges of the most frequent neighbours, until every word is one symbol."""
    chains = [list(word) for word in words]
    places: dict[tuple[str, str], set[int]] = {}
    counts: Counter[tuple[str, str]] = Counter()

    def count(index: int, by: int) -> None:
        for pair in zip(chains[index], chains[index][1:], strict=False):
            counts[pair] += by
            places.setdefault(pair, set()).add(index)

    for index in range(len(chains)):
        count(index, 1)
    merges = []
    while counts:
        best = max(counts, key=lambda pair: (counts[pair], pair))
        if counts[best] <= 0:
            break
        merges.append(best)
        for index in sorted(places.pop(best)):
            count(index, -1)
            chain, merged = chains[index], []
            at = 0
            while at < len(chain):
                pair = tuple(chain[at : at + 2])
                merged.append("".join(pair) if pair == best else chain[at])
                at += 2 if pair == best else 1
            chains[index] = merged
            count(index, 1)
        counts = +counts if len(merges) % 64 == 0 else counts
    return merges


def cut_by_chance(texts: Iterable[str], seed: int) -> list[str]:
    """The texts, and their pieces when they are cut after 1 to 9 characters."""
    draw = numbers(seed)
    pieces = list(texts)
    for text in list(pieces):
        start = 0
        while start < len(text):
            end = start + 1 + next(draw) % 9
            pieces.append(text[start:end])
            start = end
    return pieces


@functools.cache
def bytes_vocabulary() -> Vocabulary:
    """Byte-level pairs; and words that no merges lead to, which only some kinds may find."""
    letters = byte_letters()
    texts = cut_by_chance((text for text in TEXTS if len(text) < 100), 5)
    merges = train(["".join(letters[b] for b in text.encode()) for text in texts])
    v = Vocabulary("gpt2", [letters[b] for b in range(256)], [NORMAL] * 256, merges=[])
    known = set(v.tokens)
    assert v.merges is not None

    def add(token: str) -> None:
        if token not in known:
            known.add(token)
            v.add(token)

    for left, right in merges:
        v.merges.append(f"{left} {right}")
        add(left + right)
    for text in TEXTS:
        for word in text.split()[::3]:
            add("".join(letters[b] for b in (" " + word).encode()))
            add("".join(letters[b] for b in word.encode()))
    v.bos, v.eos = v.add("<|begin|>", CONTROL), v.add("<|over|>", CONTROL)
    return v


@functools.cache
def characters_vocabulary() -> Vocabulary:
    """Pairs of characters with U+2581 for spaces. A third of the characters have no token of their own."""
    lines = [line.replace(" ", "▁") for text in TEXTS if len(text) < 100 for line in text.split("\n")]
    characters = sorted({c for line in lines for c in line if c != "\0"})
    characters = [c for index, c in enumerate(characters) if c < "\x7f" or index % 3]
    v = Vocabulary("gpt2", [], [], merges=[])
    v.unknown, v.bos, v.eos = v.add("<unk>", UNKNOWN), v.add("<bos>", CONTROL), v.add("<eos>", CONTROL)
    for b in range(256):
        v.add(f"<0x{b:02X}>", BYTE)
    known = set(characters)
    for token in ["\n", "\n\n", "\n\n\n", *characters]:
        if token not in v.tokens:
            v.add(token)
    assert v.merges is not None
    for left, right in train([[c for c in line if c in known] for line in lines]):
        v.merges.append(f"{left} {right}")
        if left + right not in known:
            known.add(left + right)
            v.add(left + right)
    return v


def substrings(words: Iterable[str], seed: int) -> list[str]:
    """Some of the shorter substrings of all words, in an order of chance."""
    draw, pieces = numbers(seed), dict[str, None]()
    for word in words:
        for start in range(len(word)):
            for length in range(2, 9):
                if start + length <= len(word) and next(draw) % 3 == 0:
                    pieces[word[start : start + length]] = None
    return list(pieces)


@functools.cache
def wordpiece_vocabulary() -> Vocabulary:
    """Characters and substrings in small and capital letters, with and without accents; many are missing."""
    v = Vocabulary("bert", [], [])
    for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
        v.add(token, UNKNOWN if token == "[UNK]" else CONTROL)
    v.unknown, v.bos, v.eos = 1, 2, 3
    texts = [t.replace("\0", "") for text in TEXTS for t in (text, text.lower(), unicodedata.normalize("NFD", text))]
    characters = sorted({c for text in texts for c in text if not c.isspace()})
    pieces = [c for index, c in enumerate(characters) if index % 7]
    pieces += ["▁" + c for index, c in enumerate(characters) if index % 5]
    pieces += substrings(("▁" + word for text in texts for word in text.split()), 2)
    for piece in dict.fromkeys(pieces):
        v.add(piece)
    return v


@functools.cache
def unigram_vocabulary() -> Vocabulary:
    """Characters and substrings with random scores; user-defined and unused tokens among them."""
    v = Vocabulary("t5", [], [], scores=[])
    for token in ("<pad>", "</s>", "<unk>"):
        v.add(token, UNKNOWN if token == "<unk>" else CONTROL)
    v.unknown, v.eos, v.bos = 2, 1, 1
    draw = numbers(3)
    lines = ["▁" + text.replace("\0", "").replace(" ", "▁") for text in TEXTS if len(text) < 200]
    pieces = [c for index, c in enumerate(sorted({c for line in lines for c in line})) if index % 4 or c == "▁"]
    for index, piece in enumerate(dict.fromkeys([*pieces, *substrings(lines, 4)])):
        kind = USER_DEFINED if index % 997 == 500 else UNUSED if index % 501 == 400 else NORMAL
        v.add(piece, kind, -2.0 * len(piece.encode()) ** 0.5 - next(draw) % 1000 / 250)
    return v


def charsmap(replacements: dict[bytes, bytes]) -> bytes:
    """A normaliser as SentencePiece compiles it: a double array of prefixes, with the replacements behind it.

    Every node has 256 units of its own, which wastes space and needs no search for free ones.
    """
    strings = b"".join(text + b"\0" for text in replacements.values())
    units = [0] * 256
    nodes: dict[bytes, int] = {}

    def block(prefix: bytes, index: int) -> int:
        start = len(units)
        units.extend([0xFE] * 256)
        offset = index ^ start
        units[index] |= offset << 10 if offset < 1 << 21 else offset >> 8 << 10 | 1 << 9
        nodes[prefix] = start
        return start

    block(b"", 0)
    offset = 0
    for text, replacement in replacements.items():
        for end in range(1, len(text) + 1):
            index = nodes[text[: end - 1]] ^ text[end - 1]
            units[index] = units[index] & ~0xFF | text[end - 1] if units[index] != 0xFE else text[end - 1]
            if text[:end] not in nodes:
                block(text[:end], index)
        units[index] |= 1 << 8
        units[nodes[text]] = 1 << 31 | offset
        offset += len(replacement) + 1
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + strings


def compatible() -> dict[bytes, bytes]:
    """Characters of the texts that NFKC changes, white space as one space, and what SentencePiece takes out."""
    replacements = {}
    for c in sorted({c for text in TEXTS for c in text}):
        folded = " " if c.isspace() else "" if c in "\x01\u200b\u00ad\ufeff" else unicodedata.normalize("NFKC", c)
        if folded != c and c != "\0" and not "가" <= c <= "힣":
            replacements[c.encode()] = folded.encode()
    for c in "aeo":
        for mark in "\u0301\u0308":
            replacements[(c + mark).encode()] = unicodedata.normalize("NFC", c + mark).encode()
    return replacements


# ---------------------------------------------------------------------------------------------------------------- files
def pairs_of(model: str, v: Vocabulary, **flags: bool | str) -> list[Pair]:
    """The metadata of a vocabulary; `flags` are keys below `tokenizer.ggml`."""
    key = "tokenizer.ggml.{}".format
    pairs = [
        Pair(key("model"), STRING, model),
        Pair(key("tokens"), ARRAY, v.tokens, STRING),
        Pair(key("token_type"), ARRAY, v.types, I32),
        Pair(key("bos_token_id"), U32, v.bos),
        Pair(key("eos_token_id"), U32, v.eos),
    ]
    if v.merges is not None:
        pairs.append(Pair(key("merges"), ARRAY, v.merges, STRING))
    if v.scores is not None:
        pairs.append(Pair(key("scores"), ARRAY, v.scores, F32))
    if v.unknown is not None:
        pairs.append(Pair(key("unknown_token_id"), U32, v.unknown))
    for name, value in flags.items():
        pairs.append(Pair(key(name.replace("__", ".")), STRING if isinstance(value, str) else BOOL, value))
    return pairs


def byte_pairs(name: str) -> list[Pair]:
    v = characters_vocabulary() if name in OF_CHARACTERS else bytes_vocabulary()
    return pairs_of("gpt2", v, pre=name)


def wordpiece(**flags: bool) -> list[Pair]:
    return [
        *pairs_of("bert", wordpiece_vocabulary(), **flags),
        Pair("tokenizer.ggml.seperator_token_id", U32, 3),
        Pair("tokenizer.ggml.mask_token_id", U32, 4),
    ]


def unigram(normalise: bool, **flags: bool) -> list[Pair]:
    pairs = pairs_of("t5", unigram_vocabulary(), **flags)
    if normalise:
        pairs.append(Pair("tokenizer.ggml.precompiled_charsmap", ARRAY, charsmap(compatible()), U8))
    return pairs


KINDS: dict[str, Callable[[], list[Pair]]] = {
    **{f"gpt2/{name}": functools.partial(byte_pairs, name) for name in PRE_TOKENIZERS},
    "gemma4": lambda: pairs_of("gemma4", characters_vocabulary()),
    "bert": wordpiece,
    "bert/cased": lambda: wordpiece(normalizer__lowercase=False),
    "bert/accents": lambda: wordpiece(normalizer__strip_accents=False),
    "bert/cased without accents": lambda: wordpiece(normalizer__lowercase=False, normalizer__strip_accents=True),
    "t5": lambda: unigram(True, add_space_prefix=True, remove_extra_whitespaces=True),
    "t5/without normaliser": lambda: unigram(False),
    "t5/prefix": lambda: unigram(True, add_space_prefix=True, add_bos_token=True, add_eos_token=False),
    "t5/fewer spaces": lambda: unigram(False, remove_extra_whitespaces=True),
}


def write(path: Path, kind: str) -> Path:
    """Writes a tiny model with the vocabulary of a kind."""
    pairs = KINDS[kind]()
    tokens = next(pair.value for pair in pairs if pair.key == "tokenizer.ggml.tokens")
    shape = tiny.Tiny(layers=1, width=32, heads=1, kv_heads=1, ffn=32).resolved()
    model = [
        pair for pair in tiny.metadata(shape, Vocabulary("gpt2", tokens, [])) if not pair.key.startswith("tokenizer.")
    ]
    with open(path, "wb") as file:
        tiny.write_file(file, model + pairs, list(enumerate(tiny.Layout(shape, len(tokens)).model())), 0)
    return path


# ------------------------------------------------------------------------------------------------------------ reference
HASH = 3
"""Bytes of a hash. One of 16 million wrong answers would go unseen."""


def hashes(answers: Iterable[Sequence[int]]) -> str:
    """The hash of every answer."""
    parts = [hashlib.sha256(json.dumps(list(ids)).encode()).digest()[:HASH] for ids in answers]
    return base64.b64encode(b"".join(parts)).decode()


def differing(found: str, expected: str) -> list[str]:
    """The texts whose hashes differ."""
    left, right = base64.b64decode(found), base64.b64decode(expected)
    assert len(left) == len(right) == HASH * len(TEXTS)
    at = range(0, len(left), HASH)
    return [text for text, i in zip(TEXTS, at, strict=True) if left[i : i + HASH] != right[i : i + HASH]]
