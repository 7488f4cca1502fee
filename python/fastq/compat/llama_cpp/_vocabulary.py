"""What the file of a model says beside its weights: metadata, named tokens, and the bytes of each token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import fastq

if TYPE_CHECKING:
    from fastq import Model

# Of `llama_token_type`.
UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6

SPACE = "▁"
"""How SentencePiece writes a space."""

NO_TOKEN = -1
"""What llama.cpp gives for a token that a vocabulary lacks."""


def printable_bytes() -> dict[str, int]:
    """The characters that byte-level vocabularies (GPT-2) write bytes as.

    A byte that is a printable character of Latin-1 is that character; the others follow each other from U+0100.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(0x100) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(0x100 + i): byte for i, byte in enumerate(hidden)}


class Vocabulary:
    """The tokens of a model, as bytes.

    Args:
        model: The loaded model, which makes tokens of texts.
        path: Its file.
    """

    def __init__(self, model: Model, path: str) -> None:
        self._model = model
        self._path = path

    @cached_property
    def _raw(self) -> dict[str, Any]:
        return dict(fastq.inspect(self._path).metadata)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The values of the file that are not arrays, as llama.cpp writes them: all are strings."""
        return {key: _shown(value) for key, value in self._raw.items() if _is_scalar(value)}

    def raw(self, key: str, default: Any = None) -> Any:
        """A value as it is in the file."""
        return self._raw.get(key, default)

    def of_architecture(self, key: str, default: Any = None) -> Any:
        """A value whose key begins with the name of the architecture."""
        return self.raw(f"{self.raw('general.architecture')}.{key}", default)

    def named(self, *names: str) -> int:
        """The id of a token that the file names (``"bos"``), the first of several names; -1 without one."""
        for name in names:
            token = self.raw(f"tokenizer.ggml.{name}_token_id")
            if token is not None:
                return int(token)
        return NO_TOKEN

    @cached_property
    def bos(self) -> int:
        """The token that begins a text, or -1."""
        token = self.named("bos", "cls")
        return self._default("bos") if token == NO_TOKEN else token

    @cached_property
    def eos(self) -> int:
        """The token that ends a text, or -1."""
        token = self.named("eos")
        return self._default("eos") if token == NO_TOKEN else token

    def _default(self, name: str) -> int:
        # What llama.cpp takes where a file of SentencePiece names none, and where one of GPT-2 does not.
        defaults = {"llama": {"bos": 1, "eos": 2}, "gpt2": {"bos": 11, "eos": 11}}
        return defaults.get(self.kind, {}).get(name, NO_TOKEN)

    @cached_property
    def newline(self) -> int:
        """The token of a line feed, or -1."""
        if self.kind == "bert":
            return NO_TOKEN
        # llama.cpp gives the byte's token where there is one, though texts are written with another.
        if self.kind == "llama" and "<0x0A>" in self._tokens:
            return self._tokens.index("<0x0A>")
        ids = self._model.tokenize("\n", bos=False, special=False)
        return ids[-1] if ids else NO_TOKEN

    @cached_property
    def kind(self) -> str:
        """``tokenizer.ggml.model``."""
        return str(self.raw("tokenizer.ggml.model", ""))

    @cached_property
    def adds_bos(self) -> bool:
        """Whether a text begins with BOS (or what the file has in its place)."""
        ids = self._model.tokenize("a", bos=True, special=False)
        return bool(ids) and ids[0] == self.bos

    def text(self, token: int) -> str:
        """How the file writes a token; empty for -1."""
        return str(self._tokens[token]) if 0 <= token < len(self._tokens) else ""

    @cached_property
    def _tokens(self) -> Sequence[str]:
        tokens: Sequence[str] = self.raw("tokenizer.ggml.tokens", ())
        return tokens

    @cached_property
    def _types(self) -> Sequence[int]:
        types: Sequence[int] = self.raw("tokenizer.ggml.token_type", ())
        return types

    def tokenize(self, text: bytes, add_bos: bool, special: bool) -> list[int]:
        """Token ids of a text in UTF-8.

        Raises:
            TypeError: It is not ``bytes``.
            UnicodeDecodeError: The bytes are not UTF-8.
        """
        if not isinstance(text, (bytes, bytearray)):
            raise TypeError(f"text: expected bytes, found {type(text).__name__}; use text.encode('utf-8')")
        return self._model.tokenize(bytes(text).decode("utf-8"), bos=add_bos, special=special)

    def detokenize(self, tokens: Iterable[int], special: bool = False) -> bytes:
        """The bytes of tokens. A space before the first word is dropped only after BOS, as llama-cpp-python does.

        Raises:
            ValueError: An id is outside the vocabulary.
        """
        ids = [int(token) for token in tokens]
        text = b"".join(self.piece(token, special) for token in ids)
        return text[1:] if ids and ids[0] == self.bos and text[:1] == b" " else text

    def piece(self, token: int, special: bool = False) -> bytes:
        """The bytes of one token: a part of a character, where the vocabulary has such.

        Raises:
            ValueError: The id is outside the vocabulary.
        """
        if not 0 <= token < len(self._tokens):
            raise ValueError(f"token {token} is outside the vocabulary of {len(self._tokens)} tokens")
        kind = self._types[token] if token < len(self._types) else 1
        text = self._tokens[token]
        # A name that is not UTF-8 comes as it is in the file.
        if isinstance(text, bytes):
            return text
        if kind in (UNKNOWN, CONTROL):
            return text.encode() if special else b""
        if kind == USER_DEFINED:
            return text.encode()
        if kind == BYTE:
            return bytes([int(text[3:5], 16)])  # "<0x0A>"
        if self.kind == "gpt2":
            return self._of_bytes(text)
        if self.kind in ("llama", "bert", "t5"):
            return text.replace(SPACE, " ").encode()
        # Others are left to the engine, which knows whole characters only.
        return self._model.detokenize([token], special=special).encode()

    @cached_property
    def _bytes(self) -> dict[str, int]:
        return printable_bytes()

    def _of_bytes(self, text: str) -> bytes:
        return b"".join(
            bytes([self._bytes[character]]) if character in self._bytes else character.encode() for character in text
        )


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bytes, bool, int, float))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:f}"
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
