"""WordPiece as the tokenizers of BERT do it, on the vocabulary as GGUF files have it: what begins a word begins with
U+2581 there, what continues one is bare. Special tokens in a text are text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from reference.reader import File

IDEOGRAPHS = re.compile("([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
                        "\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f])")  # fmt: skip
LONGEST_WORD = 100


def is_control(character: str) -> bool:
    """Unassigned code points are none."""
    if character in "\t\n\r":
        return False
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co")


def is_punctuation(character: str) -> bool:
    """ASCII's symbols count too."""
    return unicodedata.category(character)[0] == "P" or character in "$+<=>^`|~"


class WordPiece:
    def __init__(self, file: File) -> None:
        data = {key.removeprefix("tokenizer.ggml."): value for key, value in file.metadata.items()}
        self.ids = {token: n for n, token in enumerate(data["tokens"])}
        self.first, self.last = int(data["bos_token_id"]), int(data["seperator_token_id"])
        self.unknown = int(data["unknown_token_id"])
        self.lowercase = bool(data.get("normalizer.lowercase", True))
        self.strips_accents = bool(data.get("normalizer.strip_accents", self.lowercase))

    def normalized(self, text: str) -> str:
        text = "".join(c for c in text if not is_control(c))
        text = IDEOGRAPHS.sub(r" \1 ", text)
        if self.strips_accents:
            text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
        # Letter by letter: a sigma that ends a word is one like the others.
        return "".join(c.lower() for c in text) if self.lowercase else text

    def words(self, text: str) -> Iterator[str]:
        for word in self.normalized(text).split():
            start = 0
            for at, character in enumerate(word):
                if is_punctuation(character):
                    yield from (word[start:at], character)
                    start = at + 1
            yield word[start:]

    def pieces(self, word: str) -> list[int]:
        """The longest piece that fits, again and again; one unknown token if there is a place where none fits."""
        rest, found = "▁" + word, []
        while rest:
            length = next((n for n in range(len(rest), 0, -1) if rest[:n] in self.ids), 0)
            if length == 0 or len(word) > LONGEST_WORD:
                return [self.unknown]
            found.append(self.ids[rest[:length]])
            rest = rest[length:]
        return found

    def encode(self, text: str) -> list[int]:
        return [self.first, *(piece for word in self.words(text) if word for piece in self.pieces(word)), self.last]
