"""A vocabulary of every kind of tokenizer, made on the spot, and the texts that they are compared on.

The vocabularies of byte pairs are trained until every text would be one token if nothing cut it. So each cut that a
pre-tokenizer makes, or does not make, shows in the tokens.

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
PRE_TOKENIZERS = """
    default minicpm5 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano deepseek-llm
    deepseek-coder deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es
    jina-v2-de a.x-4.0 mellum modern-bert jais-2 gemma4 granite-embed-multi-311m sarvam-moe jina-v1-en jina-v2-code
    roberta-bpe refact command-r qwen2 deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe poro-chat
    chatglm-bpe glm4 glm5 viking jais tekken smollm codeshell bloom gpt3-finnish exaone exaone4 exaone-moe chameleon
    minerva-7b megrez gpt-4o llama4 kanana2 talkie granite-embed-multi-97m tiny_aya cohere2moe superbpe trillion
    granite-docling bailingmoe bailingmoe2 llada-moe seed-coder hunyuan hunyuan-dense hy_v4 joyai-llm kimi-k2 ufakzeka
    grok-2 afmoe laguna minimax-m2 solar-open mellum2
""".split()
OF_CHARACTERS = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")


# ---------------------------------------------------------------------------------------------------------------- texts
WRITTEN = [
    "", " ", "  ", "   ", "a", "Hello world", " Hello  World!", "Hello, y'all! How are you 😁 ?我想在apple工作1314151天～",
    "The quick brown fox jumps over the lazy dog.", "I'll don't they've we're I'm he'd it's", "I'LL DON'T THEY'VE WE'RE I'M",
    "'s't're've'm'll'd 'S'T'RE'VE'M'LL'D 'sab 'lle 'rx", "rock 'n' roll ''quoted'' ’s ‘t", "HelloWorldFOOBar iPhone McDonald ÉCOLE Straße",
    "Ünïcödé naïve café résumé Ångström ÅNGSTRÖM ſtrange", "e\u0301 a\u0308o\u0308 Z\u0351\u036b\u0343 q\u0323\u0307 \u0301x", "Tiếng Việt: Xin chào thế giới",
    "İstanbul ıspanak IŞIK ğüşöç", "Привет, мир! Ёжик в тумане 2024", "Γειά σου Κόσμε ΑΒΓ ἀρχή", "שלום עולם מה שלומך", "مرحبا بالعالم ١٢٣٤٥ كتاب، نعم؟",
    "नमस्ते दुनिया १२३ क्षत्रिय।", "বাংলা ভাষা ১২৩৪", "தமிழ் மொழி", "తెలుగు భాష", "ไทยไม่มีช่องว่าง ๑๒๓", "ລາວ ພາສາ", "မြန်မာ စာ ၁၂၃", "ភាសាខ្មែរ ១២",
    "ქართული ენა ᲥᲐᲠᲗᲣᲚᲘ", "Հայերեն լեզու", "አማርኛ ፊደል ፩፪", "ᏣᎳᎩ ꮳꮃꭹ", "ᠮᠣᠩᠭᠣᠯ", "中文測試，简体字。「引号」《书名》", "日本語のテスト、カタカナ・ひらがな", "한국어 시험입니다 ㄱㄴㄷ 가각",
    "ㄅㄆㄇ 注音", "𠮷野家 㐀㐁 豈更 ｶﾀｶﾅ ＡＢＣ１２３", "𐐀𐐨 𝐀𝟏 𝔘𝔫𝔦 ℵ ℃ №", "1", "12", "123", "1234", "12345", "123456", "1234567", "12345678901234567890", "3.14159 1,000,000 1e-10 0xFF 1_000",
    "abc123def4567gh89", "abc1234 x12345678y", "٣٤٥٦ 12٣456 ½¾²³ Ⅷ ①②③④ 1234٣", "v1.2.3-beta+build.42", "2024-01-15T10:30:00Z", "+1 (555) 123-4567", "$1,234.56 €99 £5 ¥1000 50% 100°C",
    "def f(x):\n    return x ** 2  # square\n\n\nclass A:\n\tpass\n", "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i];\r\n}\r\n", "if(a&&b||!c){x=>y;}// done\n/* c */",
    "#include <stdio.h>\nint main(void) { puts(\"hi\\n\"); return 0; }", "SELECT * FROM `t` WHERE a<>'b' AND c>=1;", "<html><body class=\"x\">&nbsp;</body></html>", "path/to/file.txt C:\\Users\\x ~/.bashrc http://a.b/c?d=e&f=g#h",
    "let mut x: Vec<&'static str> = vec![];", "{\"key\": [1, 2, {\"a\": null}], \"b\": true}", "a=b+c-d*e/f%g^h|i&j~k!l?m:n;o,p.q@r#s$t", "....,,,;;;:::!!!???---___***///\\\\\\|||", "...\n!!\n\n?\r\n;\n.\n/\n/a", "`code` ``` ~~~ ^^^ <<<>>> === +++ $$$",
    "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\r", "\t", "\t\t", " \n", "\n ", " \n \n", "  \n\n  x", "a\n\nb", "a \n b", "a  \n  b", "a\n\n\n\n b", "x\t\ty \t z\t", "   x   y    z     ", "a" + " " * 9 + "b", "a" + " " * 17, " " * 31 + "b", " " * 65 + "c", " " * 600 + "d", "\t" * 5 + "e", "\n" * 9 + "f",
    "a\u00a0b\u3000c\u2003d\u2028e\u2029f\u0085g\u1680h\u202fi\u205fj", "\u3000\u3000x\u00a0\u00a0 y", " \u3000 \u2003\n\u00a0z", "\u200bzero\u200bwidth\u200d \ufeff\u2060x\u00ad", "a\u0000b\u0001c\u001fd\u007fe\u0080f\u009f", "\u001b[31mred\u001b[0m", "\ufffd\ufffc x\ue000y\U000f0000",
    "😀 😃😄 👨‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷 ❤️ ☃ ✈️ 🏳️‍🌈", "a😀b 1😀2 😀's 😀\n😀", "🦙.cpp 🚀🚀 (normal) 😶‍🌫️ (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3",
    "“smart” „quotes“ «guillemets» ‹x› –dash— …ellipsis•", "α+β=γ ∑∏∫ √2 ≤≥≠ ∞ → ⇒ ∀x∈ℝ", "x² + y³ = z⁴ H₂O CO₂ ½", "№ ™ © ® § ¶ † ‡ ° ′ ″", "foo_bar fooBar FooBar FOO_BAR foo-bar foo.bar",
    "a.b.c... d,e,,f ;g: (h) [i] {j} <k>", "(y).\n\n)x( ][ }{", "don’t it’s ’tis ‘em", "A'B C'D E'S F's G'Ll", "x 's y 't z 're", " 's", " '", "'", "''", "'x", "x'", "ab'scd'tef", "中's 文'll 字'RE", "한's é's É'S", "Ω's ß'd ǅ's ʰ's",
    "mixedРусскийEnglish中文日本語한국어", "abcабв123一二三αβγ", "Ⓐⓑ ㊀ ㈱ ﬁ ﬀ ǆ Ǆ ǅ ʻ ˈ", "ªº ᵃᵇ ʰʲ ˢ ꜰ ﹏_‿⁀", "،؛؟ ۔ ।॥ 。，、！？；： ・ 「」『』【】", "a،b؛c؟d।e۔f。g，h、i", "(a|b.c,d!e?f…g)", "¿Qué? ¡Sí! ñandú Ñ", "ÀÈÌÒÙ àèìòù âêîôû äëïöü", "Dž dž ŉ ǰ ΐ ΰ և ẖ",
    "<sentinel:12> <sentinel:> <sentinel:3>x IMGIMGABCDZ IMGIMGZ IMGIMGAZb", "\t\n    x  y\t", "a    b     c", "Hello\n\n\n\n\tWorld\n \n\n", "one two three four five six seven eight nine ten", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababababab", "ΣΣΣ ςςς σσσ", "ﷺ ﷽", "ﾊﾝｶｸ ゙゚ がぎ ヷ", "\u1100\u1161\u11a8 \u1112\u1161\u11ab", "ᄀ ᆨ ㅏ", "〆〇〻 々仝 ヶヵ", "🀄🃏🎴 𓀀𓁐 𒀀𒁀", "ⅷⅧⅯ ↀↁ 〡〢〣 ㆒㆓", "˗˚˛ ¨´¸ ^`~", "@user #tag $var %d &amp; *bold* _it_", "A1B2C3 1A2B3C a1 b22 c333 d4444", "1st 2nd 3rd 4th 5's 10%", "12 345 6789 01234", "1\n22\n333\n4444", "١٢٣٤٥٦٧ ۱۲۳۴ ०१२३४५ 一二三四五", "1½2 3²4 5①6", "x1234567890123y12", "a1,234,567.89b", "NaN Inf -0 +∞",
]  # fmt: skip

ALPHABET = [
    *"abcdeABCDEstSTLlREreVve", *"0123456789", *"     ", *"'’\"`", *".,;:!?-_/\\()[]{}<>|@#$%^&*+=~", *"\t\n\r\n\v\f",
    *"éÉßñöÅçøſ", *"\u0301\u0308\u0323\u093f\u0e31\u064e\u20e3", *"жЖяёΩωσ", *"中文一龥〇豈𠮷㐀", *"ひカ゛ーｶ", *"한글ㄱᄀ", *"אبم१٣๑५", *"ไทยက",
    *"😀👍🏽❤️\u200d", *"\u00a0\u3000\u2003\u2028\u0085\u200b\u00ad", *"½²Ⅷ①", *"、。，！？…「」।،", *"€°→∑©", *"ǅʰªˈ", *"\u0001\u007f\ufffd\ue000",
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


# ---------------------------------------------------------------------------------------------------------- vocabularies
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


@functools.cache
def bytes_vocabulary() -> Vocabulary:
    """Byte-level pairs; and words that no merges lead to, which only some kinds may find."""
    letters = byte_letters()
    merges = train(["".join(letters[b] for b in text.encode()) for text in TEXTS if len(text) < 100])
    v = Vocabulary([letters[b] for b in range(256)], [NORMAL] * 256, merges=[])
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
    v = Vocabulary([], [], merges=[])
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
    v = Vocabulary([], [])
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
    v = Vocabulary([], [], scores=[])
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
    shape = tiny.Tiny(layers=1, width=32, heads=1, kv_heads=1, ffn=32)
    model = [pair for pair in tiny.metadata(shape, Vocabulary(tokens, [])) if not pair.key.startswith("tokenizer.")]
    with open(path, "wb") as file:
        tiny.write_file(file, model + pairs, list(enumerate(tiny.tensors_of(shape, len(tokens)))), 0)
    return path


# -------------------------------------------------------------------------------------------------------------- reference
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
