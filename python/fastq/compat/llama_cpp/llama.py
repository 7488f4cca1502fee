"""The class :class:`Llama`."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from fastq.compat.llama_cpp import _arguments, _completion, _embedding, _hub
from fastq.compat.llama_cpp import llama_chat_format as chat
from fastq.compat.llama_cpp._constants import LLAMA_DEFAULT_SEED
from fastq.compat.llama_cpp._log import once
from fastq.compat.llama_cpp._tokens import LlamaState, TokenByToken
from fastq.compat.llama_cpp._vocabulary import Vocabulary
from fastq.compat.llama_cpp.llama_speculative import LlamaDraftModel, LlamaPromptLookupDecoding
from fastq.compat.llama_cpp.llama_tokenizer import BaseLlamaTokenizer, LlamaTokenizer

if TYPE_CHECKING:
    from fastq import Model
    from fastq.compat.llama_cpp import llama_types as types
    from fastq.compat.llama_cpp.llama_cache import BaseLlamaCache
    from fastq.compat.llama_cpp.llama_grammar import LlamaGrammar

__all__ = ["Llama", "LlamaState"]

MAX_SEED = 0xFFFFFFFF


class Llama(TokenByToken):
    """A model, with the interface that llama-cpp-python has.

    It can be used as a context manager. Unlike the original, it prints nothing, and several threads may call it at
    once; only what the low-level methods (:meth:`eval`, :meth:`sample`, :meth:`generate`) leave behind is not shared
    well.

    Args:
        model_path: The GGUF file; of a split model, the first shard.
        arguments: Those of the original, with its defaults (``n_ctx=512``, ``seed`` random). ``n_ctx=0`` is what the
            model was trained for, or what fits the memory. ``n_threads=None`` is what the machine grants. ``type_k``
            and ``type_v`` must be the same, F32, F16 or Q8_0. Log-probabilities do not need ``logits_all``. What is
            asked for a GPU is accepted and told once to ``logging.getLogger("fastq")``.

    Raises:
        ValueError: There is no such file, it cannot be loaded, or a value is out of range.
        NotImplementedError: An argument would change answers and is not supported: ``lora_path``, ``kv_overrides``,
            scales of positions that differ from the file's, ``spm_infill``, other formats of the cache.
        MemoryError: The model does not fit; the message names a context that would.

    Example:
        >>> from fastq import default_model
        >>> from fastq.compat.llama_cpp import Llama
        >>> llm = Llama(model_path=default_model(), n_ctx=512, verbose=False)
        >>> answer = llm.create_chat_completion([{"role": "user", "content": "What is 2+2?"}], max_tokens=8)
        >>> answer["choices"][0]["message"]["role"], answer["usage"]["completion_tokens"]
        ('assistant', 8)
    """

    def __init__(self, model_path: str | os.PathLike[str], **arguments: Any) -> None:
        self.model_path = os.fspath(model_path)
        given = _arguments.completed(arguments)
        _arguments.check(given)
        self._arguments = given
        self.verbose: bool = given["verbose"]
        self.last_n_tokens_size: int = given["last_n_tokens_size"]
        self.fastq_model: Model = _arguments.load(self.model_path, given)
        self._vocabulary = Vocabulary(self.fastq_model, self.model_path)
        try:
            _arguments.check_positions(given, self._vocabulary)
        except NotImplementedError:
            self.fastq_model.close()
            raise
        info = self.fastq_model.info
        self._n_ctx, self._n_vocab = info.context, info.vocabulary
        self.n_batch = min(self._n_ctx, given["n_batch"] or self._n_ctx)
        self.n_threads = info.threads
        self.metadata = self._vocabulary.metadata
        self.tokenizer_: BaseLlamaTokenizer = given["tokenizer"] or LlamaTokenizer(self)
        self.draft_model: LlamaDraftModel | None = given["draft_model"]
        if self.draft_model is not None and not isinstance(self.draft_model, LlamaPromptLookupDecoding):
            once("draft_model", "draft_model is not asked: tokens are guessed from the text, with the same answers")
        self.cache: BaseLlamaCache | None = None
        self.set_seed(given["seed"] or LLAMA_DEFAULT_SEED)
        self.chat_handler: Any = given["chat_handler"]
        self.chat_format: str | None = given["chat_format"]
        if self.chat_format is None and self.chat_handler is None:
            self.chat_format = chat.DEFAULT_TEMPLATE if info.chat_template else "llama-2"
        if self.chat_format is not None:
            chat.check(self.chat_format)
        self._tokens: list[int] = []
        self._scores_of = None

    # Text

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: The text in UTF-8, as ``bytes``.
            add_bos: Add what the file asks for at the ends.
            special: Parse special tokens in the text.

        Raises:
            TypeError: The text is not ``bytes``.
            UnicodeDecodeError: The bytes are not UTF-8.
        """
        return self.tokenizer_.tokenize(text, add_bos, special)

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        """The bytes of token ids. A token may be a part of a character.

        Args:
            tokens: Token ids.
            prev_tokens: Tokens before them, for tokenizers for which that matters.
            special: Show control tokens instead of leaving them out.

        Raises:
            ValueError: An id is outside the vocabulary.
        """
        return self.tokenizer_.detokenize(tokens, prev_tokens=prev_tokens, special=special)

    def create_completion(
        self,
        prompt: str | list[int],
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | list[str] | None = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: Any = None,
        logits_processor: Any = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: dict[Any, float] | None = None,
    ) -> Any:
        """Continue a prompt.

        Args:
            prompt: Text, or token ids that are taken as they are.
            suffix: What follows the text that is wanted, for models that were trained to fill in.
            max_tokens: Most tokens; ``None`` or what is not above 0 for as many as the context holds.
            temperature: 0 takes the likeliest token; below 0 draws from all tokens as they are.
            top_p: Keep the likeliest tokens up to this mass.
            min_p: Drop tokens below this share of the likeliest one's probability.
            typical_p: Locally typical sampling.
            logprobs: Tell the log-probability of each token, and this number of alternatives.
            echo: Begin the text with the prompt.
            stop: Where the text ends.
            frequency_penalty: As in :class:`fastq.GenerateOptions`; the penalties see the prompt, too.
            presence_penalty: As there.
            repeat_penalty: As there.
            top_k: Keep this number of tokens; not above 0 keeps all.
            stream: Give chunks instead of the whole.
            seed: Makes the answer repeatable; the text differs from the one that llama.cpp draws.
            tfs_z: Has no effect, as in the original.
            mirostat_mode: 1 or 2 for mirostat.
            mirostat_tau: The surprise that is aimed at.
            mirostat_eta: How fast it adapts.
            model: The name of the model in the answer.
            stopping_criteria: Functions that end the text.
            logits_processor: Functions that change logits.
            grammar: What the text must follow.
            logit_bias: Added to logits of token ids; keys may be strings.

        Returns:
            A dictionary as of ``CreateCompletionResponse``, or an iterator of such chunks.

        Raises:
            ValueError: The prompt does not fit the context, or an argument is out of range. With ``stream=True``, when
                the first chunk is asked for.
        """
        arguments = {
            name: value for name, value in locals().items() if name not in ("self", "prompt", "suffix", "stream")
        }
        if stream:
            return self._chunks(prompt, suffix, arguments)
        return _completion.completion(self, _completion.request_of(self, prompt, suffix, arguments))

    __call__ = create_completion

    def _chunks(
        self, prompt: str | list[int], suffix: str | None, arguments: dict[str, Any]
    ) -> Iterator[types.CreateCompletionStreamResponse]:
        for chunk in _completion.chunks(self, _completion.request_of(self, prompt, suffix, arguments)):
            yield cast("types.CreateCompletionStreamResponse", chunk)

    def create_chat_completion(
        self,
        messages: list[Any],
        functions: list[Any] | None = None,
        function_call: Any = None,
        tools: list[Any] | None = None,
        tool_choice: Any = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        response_format: Any = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: Any = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: dict[Any, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
    ) -> Any:
        """Answer a conversation.

        The prompt is written by ``chat_handler``, else by ``chat_format``, else by the template of the file, else in
        the format ``llama-2``.

        Args:
            messages: The conversation, oldest message first.
            functions: Functions that the model may call; an older form of ``tools``.
            function_call: An older form of ``tool_choice``.
            tools: Tools that the model may call.
            tool_choice: ``"none"``, ``"auto"``, ``"required"``, or the tool that is to be called.
            temperature: See :meth:`create_completion`, also for those that are not described here.
            top_p: As there.
            top_k: As there.
            min_p: As there.
            typical_p: As there.
            stream: Give chunks instead of the whole.
            stop: As there.
            seed: As there.
            response_format: ``{"type": "json_object"}``, with a ``"schema"`` if the JSON is to be of some form.
            max_tokens: As there.
            presence_penalty: As there.
            frequency_penalty: As there.
            repeat_penalty: As there.
            tfs_z: As there.
            mirostat_mode: As there.
            mirostat_tau: As there.
            mirostat_eta: As there.
            model: As there.
            logits_processor: As there.
            grammar: As there.
            logit_bias: As there.
            logprobs: Tell the log-probability of each token.
            top_logprobs: And this number of alternatives.

        Returns:
            A dictionary as of ``CreateChatCompletionResponse``, or an iterator of chunks.

        Raises:
            ValueError: As :meth:`create_completion`; or the tool that is to be called is not among the tools.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        handler = self.chat_handler or chat.get_chat_completion_handler(str(self.chat_format))
        return handler(llama=self, **arguments)

    def create_chat_completion_openai_v1(self, *args: Any, **kwargs: Any) -> Any:
        """The same as :meth:`create_chat_completion`, with the classes of the ``openai`` package.

        Raises:
            ImportError: It is not installed.
        """
        try:
            from openai.types.chat import ChatCompletion, ChatCompletionChunk
        except ImportError as error:
            message = "create_chat_completion_openai_v1 needs the openai package: pip install openai"
            raise ImportError(message) from error
        answer = self.create_chat_completion(*args, **kwargs)
        if kwargs.get("stream", False):
            return (ChatCompletionChunk(**chunk) for chunk in answer)
        return ChatCompletion(**answer)

    # Vectors

    def create_embedding(self, input: str | list[str], model: str | None = None) -> types.CreateEmbeddingResponse:  # noqa: A002
        """Vectors for texts, in the shape of the OpenAI API.

        Args:
            input: One text or several.
            model: The name of the model in the answer.

        Raises:
            RuntimeError: The model was made without ``embedding=True``.
        """
        return _embedding.response(self, input, model)

    def embed(
        self,
        input: str | list[str],  # noqa: A002
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """Vectors for texts.

        Args:
            input: One text or several.
            normalize: Divide each vector by its length.
            truncate: Shorten texts that are longer than the context instead of raising.
            return_count: Give the number of tokens, too.

        Returns:
            A list of floats for one text, a list of them for several; with ``return_count`` a pair. Unlike in the
            original, models that were not made for vectors give one per text, too: the mean of those of its tokens.

        Raises:
            RuntimeError: The model was made without ``embedding=True``.
            ValueError: A text is longer than the context, without ``truncate``.
        """
        return _embedding.vectors(self, input, normalize, truncate, return_count)

    # State

    def set_cache(self, cache: BaseLlamaCache | None) -> None:
        """Accepted; the model itself keeps what it computed (:mod:`fastq.compat.llama_cpp.llama_cache`)."""
        self.cache = cache

    def set_seed(self, seed: int | None) -> None:
        """The seed of what comes next; -1 and 0xFFFFFFFF are random (in the constructor, 0 is, too)."""
        is_random = seed in (None, -1, LLAMA_DEFAULT_SEED)
        self._seed = random.SystemRandom().randrange(MAX_SEED) if is_random else int(seed or 0) & MAX_SEED
        self._seeds = random.Random(self._seed)

    def _next_seed(self, seed: int | None) -> int:
        """The seed of a completion: what it asks for, else the next of a series that the model's seed begins."""
        if seed is None:
            return self._seeds.randrange(MAX_SEED)
        self.set_seed(seed)
        return self._seed

    def __getstate__(self) -> dict[str, Any]:
        return {"model_path": self.model_path, **self._arguments, "seed": self._seed, "chat_format": self.chat_format}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    # Facts

    def n_ctx(self) -> int:
        """Tokens of prompt and answer together."""
        return self._n_ctx

    def n_embd(self) -> int:
        """Length of the hidden state."""
        return self.fastq_model.info.width

    def n_vocab(self) -> int:
        """Number of tokens of the vocabulary."""
        return self._n_vocab

    def tokenizer(self) -> LlamaTokenizer:
        """The tokenizer of the file."""
        return LlamaTokenizer(self)

    def token_eos(self) -> int:
        """The token that ends a text, or -1."""
        return self._vocabulary.eos

    def token_bos(self) -> int:
        """The token that begins a text, or -1."""
        return self._vocabulary.bos

    def token_nl(self) -> int:
        """The token of a line feed, or -1."""
        return self._vocabulary.newline

    def pooling_type(self) -> int:
        """How vectors are made, one of ``LLAMA_POOLING_TYPE_*``."""
        return _embedding.pooling_type(self)

    def close(self) -> None:
        """Free the memory now."""
        # Nothing is there where the constructor failed.
        if model := self.__dict__.get("fastq_model"):
            model.close()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None,
        additional_files: list[str] | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_use_symlinks: Any = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Llama:
        """A model of the Hugging Face Hub, downloaded by the package ``huggingface_hub`` if it is not there yet.

        Args:
            repo_id: The repository.
            filename: The file, or a pattern that one file matches (``"*Q4_K_M.gguf"``).
            additional_files: Further files or patterns, such as the other shards of a split model.
            local_dir: Where to put the files instead of into the hub's cache.
            local_dir_use_symlinks: Has no effect: the hub's client does not know it any more.
            cache_dir: The hub's cache.
            kwargs: Arguments of the constructor.

        Raises:
            ImportError: ``huggingface_hub`` is not installed.
            ValueError: No file matches, or several do.
        """
        return cls(_hub.download(repo_id, filename, additional_files, local_dir, cache_dir), **kwargs)
