"""Small vocabularies that work: byte-level BPE with merges, SentencePiece with byte fallback, and WordPiece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

# Types of tokens in `tokenizer.ggml.token_type`
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6

TEXT = (
    "the and of to in he er on re at ing is it that was for are with his they this have from one had by word but "
    "not what all were we when your can said there use an each which she do how their if will up other about out "
    "many then them some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part time day "
    "night light model token engine"
)
WORDS = TEXT.split()
# Characters of two, three and four bytes: their tokens are whole characters, and pieces of one.
CHARACTERS = "éüñßøΩжя中文日本語한—…€🙂🚀"


def byte_letters() -> dict[int, str]:
    """The printable stand-ins of GPT-2 for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in plain}
    for n, b in enumerate(b for b in range(256) if b not in letters):
        letters[b] = chr(256 + n)
    return letters


@dataclass
class Vocabulary:
    model: Literal["llama", "gpt2", "bert", "t5"]
    tokens: list[str]
    types: list[int]
    merges: list[str] | None = None
    scores: list[float] | None = None
    bos: int = 0
    eos: int = 0
    unknown: int | None = None
    others: dict[str, int] = field(default_factory=dict)
    """Further tokens with a key of their own."""

    def add(self, token: str, kind: int = NORMAL, score: float = 0.0) -> int:
        self.tokens.append(token)
        self.types.append(kind)
        if self.scores is not None:
            self.scores.append(score)
        return len(self.tokens) - 1

    def pad_to(self, size: int | None) -> None:
        if size is None:
            return
        if size < len(self.tokens):
            raise ValueError(f"vocab_size {size} is below the {len(self.tokens)} tokens that are needed")
        space = "Ġ" if self.merges is not None else "▁"
        while len(self.tokens) < size:
            self.add(f"{space}w{len(self.tokens)}", NORMAL, -1e6)


def bpe_vocabulary(size: int | None) -> Vocabulary:
    """Byte-level BPE: 256 bytes, words, characters of several bytes, four control tokens."""
    letters = byte_letters()
    v = Vocabulary("gpt2", [letters[b] for b in range(256)], [NORMAL] * 256, merges=[])
    known = set(v.tokens)
    assert v.merges is not None
    for word in [*WORDS, *(" " + w for w in WORDS), "  ", "    ", "\n\n", *CHARACTERS[:-1]]:
        spelled = "".join(letters[b] for b in word.encode())
        for end in range(2, len(spelled) + 1):
            if spelled[:end] not in known:
                known.add(spelled[:end])
                v.add(spelled[:end])
                v.merges.append(f"{spelled[: end - 1]} {spelled[end - 1]}")
    v.pad_to(None if size is None else size - 4)
    v.bos = v.add("<|begin_of_text|>", CONTROL)
    v.eos = v.add("<|end_of_text|>", CONTROL)
    v.add("<|im_start|>", CONTROL)
    v.add("<|im_end|>", CONTROL)
    return v


def spm_vocabulary(size: int | None, gemma: bool) -> Vocabulary:
    """SentencePiece with byte fallback; the control tokens stand where llama and gemma have them."""
    v = Vocabulary("llama", [], [], scores=[])
    if gemma:
        for token in ("<pad>", "<eos>", "<bos>"):
            v.add(token, CONTROL, -1000.0)
        v.unknown, v.eos, v.bos = v.add("<unk>", UNKNOWN, -1000.0), 1, 2
    else:
        v.unknown = v.add("<unk>", UNKNOWN)
        v.bos, v.eos = v.add("<s>", CONTROL), v.add("</s>", CONTROL)
    for b in range(256):
        v.add(f"<0x{b:02X}>", BYTE)
    known = set(v.tokens)
    pieces = ["▁", "▁▁", "▁▁▁▁", "\n", *map(chr, range(33, 127)), *CHARACTERS[:-1]]
    for word in [*WORDS, *("▁" + w for w in WORDS)]:
        pieces += [word[:end] for end in range(2, len(word) + 1)]
    for piece in pieces:
        if piece not in known:
            known.add(piece)
            v.add(piece, NORMAL, -float(len(v.tokens)))
    v.pad_to(None if size is None else size - 2)
    v.add("<start_of_turn>" if gemma else "<|im_start|>", CONTROL)
    v.add("<end_of_turn>" if gemma else "<|im_end|>", CONTROL)
    return v


def wordpiece_vocabulary(size: int | None) -> Vocabulary:
    """WordPiece as GGUF has it: what begins a word begins with U+2581, what continues one is bare."""
    v = Vocabulary("bert", [], [])
    v.others["padding_token_id"] = v.add("[PAD]", CONTROL)
    v.unknown = v.add("[UNK]", CONTROL)
    v.bos = v.others["cls_token_id"] = v.add("[CLS]", CONTROL)
    v.eos = v.others["seperator_token_id"] = v.add("[SEP]", CONTROL)  # spelled so in every file
    v.others["mask_token_id"] = v.add("[MASK]", CONTROL)
    characters = [*map(chr, range(33, 127)), *CHARACTERS[:-1]]
    endings = [word[-n:] for word in WORDS for n in (2, 3) if len(word) > n]
    pieces = ["▁" + piece for piece in [*characters, *WORDS]] + characters + endings
    for piece in dict.fromkeys(piece for piece in pieces if piece == piece.lower()):
        v.add(piece)
    v.pad_to(size)
    return v
