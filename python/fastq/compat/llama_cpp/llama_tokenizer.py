"""Tokenizers as objects of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastq.compat.llama_cpp.llama import Llama

__all__ = ["BaseLlamaTokenizer", "LlamaHFTokenizer", "LlamaTokenizer"]


class BaseLlamaTokenizer:
    """What :class:`Llama` takes as ``tokenizer=``."""

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of a text in UTF-8."""
        raise NotImplementedError

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        """The text of token ids, of which ``prev_tokens`` came before."""
        raise NotImplementedError


class LlamaTokenizer(BaseLlamaTokenizer):
    """The tokenizer of a model's file.

    Args:
        llama: The model.
    """

    def __init__(self, llama: Llama) -> None:
        self._vocabulary = llama._vocabulary

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of a text.

        Args:
            text: The text in UTF-8.
            add_bos: Add what the file asks for at the ends.
            special: Parse special tokens in the text.

        Raises:
            UnicodeDecodeError: The bytes are not UTF-8.
        """
        return self._vocabulary.tokenize(text, add_bos, special)

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        """The bytes of token ids. A token may be a part of a character.

        Args:
            tokens: Token ids.
            prev_tokens: Has no effect: a token of these files is the same bytes wherever it is.
            special: Show control tokens instead of leaving them out.
        """
        return self._vocabulary.detokenize(tokens, special)

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """The same as :meth:`tokenize` for a ``str``."""
        return self.tokenize(text.encode("utf-8", errors="ignore"), add_bos=add_bos, special=special)

    def decode(self, tokens: list[int]) -> str:
        """The same as :meth:`detokenize`, as a ``str``; bytes that are not UTF-8 are left out."""
        return self.detokenize(tokens).decode("utf-8", errors="ignore")

    @classmethod
    def from_ggml_file(cls, path: str) -> LlamaTokenizer:
        """The tokenizer of a file."""
        from fastq.compat.llama_cpp.llama import Llama

        return cls(Llama(model_path=path, vocab_only=True, verbose=False))


class LlamaHFTokenizer(BaseLlamaTokenizer):
    """A tokenizer of the ``transformers`` library.

    Args:
        hf_tokenizer: Has ``encode(text, add_special_tokens=)`` and ``decode(ids, skip_special_tokens=)``.
    """

    def __init__(self, hf_tokenizer: Any) -> None:
        self.hf_tokenizer = hf_tokenizer

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of a text; ``special`` says whether the tokenizer adds its own at the ends."""
        ids: list[int] = self.hf_tokenizer.encode(text.decode("utf-8", errors="ignore"), add_special_tokens=special)
        return ids

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        """What the tokens add to the text of those before."""
        before = list(prev_tokens or ())
        whole: str = self.hf_tokenizer.decode(before + list(tokens), skip_special_tokens=not special)
        head: str = self.hf_tokenizer.decode(before, skip_special_tokens=not special) if before else ""
        return whole.encode("utf-8", errors="ignore")[len(head.encode("utf-8", errors="ignore")) :]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str) -> LlamaHFTokenizer:
        """The tokenizer of a checkpoint.

        Raises:
            ImportError: ``transformers`` is not installed.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise ImportError("LlamaHFTokenizer needs the transformers library: pip install transformers") from error
        return cls(AutoTokenizer.from_pretrained(pretrained_model_name_or_path=pretrained_model_name_or_path))
