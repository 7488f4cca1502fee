"""The model: load once, generate from any thread."""

from __future__ import annotations

import os
import sys

from fastq import _fastq
from fastq.files import described

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Literal, overload

    import numpy as np
    from numpy.typing import NDArray

    from fastq.results import ChatCompletion, Completion, ModelInfo

__all__ = ["Model", "Stream"]


class Stream:
    """A running generation: an iterator of pieces of text, each valid UTF-8, that join to the whole text.

    The record of the whole answer is in :attr:`result`. Any thread may call :meth:`cancel`.
    """

    _stream: _fastq.Stream

    def __init__(self, stream: _fastq.Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._stream.next_piece()
        if piece is None:
            raise StopIteration
        return piece

    def cancel(self) -> None:
        """Stop after the piece of work under way; the iterator then ends, with finish reason ``"cancelled"``."""
        self._stream.cancel()

    @property
    def result(self) -> Completion:
        """Text, tokens, finish reason and timings of a stream that has ended or was cancelled.

        Raises:
            ValueError: The stream is still under way.
        """
        return _completion(self._stream.completion())


class Model:
    """A language model in a GGUF file, running on the processor.

    One model serves any number of threads. It can be used as a context manager; leaving the block frees its memory.

    Args:
        path: The GGUF file; of a split model, the first shard.
        context: Tokens of prompt and answer together; by default what the model was trained for, or what fits the
            memory that is free.
        threads: Threads to compute with; by default what the machine grants: the smaller of CPU quota (cgroup),
            affinity mask and performance cores. The answer does not depend on it.
        mmap: Map the file instead of reading it. Loading takes milliseconds and the weights stay in the page cache;
            ``False`` copies them into memory, for files that may change while in use.
        seed: Seed of the calls that do not give their own.
        level: SIMD level by name (see :func:`fastq.cpu_info`); by default the best of this CPU, or ``FASTQ_LEVEL``.
        prefill_chunk: Prompt tokens computed at once. Smaller chunks need less memory and react faster to
            ``cancel()``; the answer does not depend on it.
        kv: What the KV cache stores: ``"f16"``; ``"f32"``, keys and values as they are computed, in twice the memory;
            or ``"q8_0"``, 8-bit integers with a scale per 32 values, in 53 % of it. Their answers differ a little.
        architecture: For a file whose ``general.architecture`` is not known, a variant of one that is: its name, or a
            description of how it differs, as a mapping or in a TOML file, with the keys ``base`` and those that
            CONTRIBUTING lists: ``{"base": "llama", "head_norms": "each"}``. The metadata keys still begin with the
            name in the file.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The system refuses to read it.
        ModelFileError: The file is malformed; the message names the key or tensor, the offset, what was expected and
            what was found.
        UnsupportedModelError: The architecture, tokenizer or a tensor type is not known to this version.
        MemoryError: KV cache and working memory do not fit; the message names a context that would.
        ValueError: An argument is out of range, the level does not exist on this CPU, or ``kv`` is not a format of the
            cache.

    Example:
        >>> from fastq import Model, default_model
        >>> with Model(default_model(), context=512) as m:
        ...     print(m.generate("The capital of France is", max_tokens=2, temperature=0))
         Paris.
    """

    _engine: _fastq.Engine
    _info: ModelInfo | None

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        context: int | None = None,
        threads: int | None = None,
        mmap: bool = True,
        seed: int | None = None,
        level: str | None = None,
        prefill_chunk: int = 512,
        kv: Literal["f32", "f16", "q8_0"] = "f16",
        architecture: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    ) -> None:
        self._info = None
        self._engine = _fastq.Engine(
            os.fspath(path),
            context=context,
            threads=threads,
            mmap=mmap,
            seed=seed,
            level=level,
            prefill_chunk=prefill_chunk,
            kv=kv,
            architecture=described(architecture),
        )
        # Whoever listens has imported it.
        if (logging := sys.modules.get("logging")) and (log := logging.getLogger("fastq")).isEnabledFor(logging.INFO):
            i = self.info
            log.info(
                "loaded %s (%s, %d parameters) in %.1f ms: level %s, %d threads, context %d",
                i.path, i.architecture, i.parameters, 1000 * i.load_seconds, i.level, i.threads, i.context,
            )  # fmt: skip
        # Without a handler, logging itself would print a warning.
        if logging and log.hasHandlers() and (warning := self._engine.warning()):
            log.warning("%s: %s", self.info.path, warning)

    if TYPE_CHECKING:

        @overload
        def generate(
            self,
            prompt: str | list[int],
            *,
            max_tokens: int | None = 256,
            temperature: float = 0.8,
            top_k: int = 40,
            top_p: float = 0.95,
            min_p: float = 0.05,
            typical_p: float = 1.0,
            repeat_penalty: float = 1.0,
            repeat_last_n: int = 64,
            presence_penalty: float = 0.0,
            frequency_penalty: float = 0.0,
            logit_bias: Mapping[int, float] | None = None,
            seed: int | None = None,
            stop: str | Sequence[str] | None = None,
            ignore_eos: bool = False,
        ) -> Completion: ...

        @overload
        def generate(
            self,
            prompt: list[str] | list[list[int]],
            *,
            max_tokens: int | None = 256,
            temperature: float = 0.8,
            top_k: int = 40,
            top_p: float = 0.95,
            min_p: float = 0.05,
            typical_p: float = 1.0,
            repeat_penalty: float = 1.0,
            repeat_last_n: int = 64,
            presence_penalty: float = 0.0,
            frequency_penalty: float = 0.0,
            logit_bias: Mapping[int, float] | None = None,
            seed: int | None = None,
            stop: str | Sequence[str] | None = None,
            ignore_eos: bool = False,
        ) -> list[Completion]: ...

    def generate(
        self,
        prompt: str | list[int] | list[str] | list[list[int]],
        *,
        max_tokens: int | None = 256,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        ignore_eos: bool = False,
    ) -> Completion | list[Completion]:
        """Continue a prompt, or several as one batch.

        Args:
            prompt: Text (special tokens in it are parsed, and BOS is added as the file asks), or token ids taken as
                they are; a list of either is a batch, answered in its order. Every answer equals the one of a call of
                its own.
            max_tokens: Most tokens to generate; ``None`` for as many as the context holds.
            temperature: Divides the logits before drawing; 0 takes the likeliest token (greedy).
            top_k: Keep the ``k`` likeliest tokens; 0 keeps all.
            top_p: Keep the likeliest tokens up to this probability mass (Holtzman et al. 2020); 1 keeps all.
            min_p: Drop tokens below this share of the likeliest one's probability; 0 keeps all.
            typical_p: Locally typical sampling (Meister et al. 2022); 1 keeps all.
            repeat_penalty: Divides positive and multiplies negative logits of recent tokens; 1 is off.
            repeat_last_n: How many recent tokens the penalties look at; 0 none, -1 all.
            presence_penalty: Subtracted once from logits of recent tokens.
            frequency_penalty: Subtracted once for each occurrence among the recent tokens.
            logit_bias: Added to the logits of token ids.
            seed: Makes the answer repeatable; ``None`` takes the model's seed, or a random one (``result.seed``).
            stop: A string, or several, at which the text ends; not part of it.
            ignore_eos: Never choose an end token, so that the text goes on to ``max_tokens``.

        Returns:
            The completion; for a list, a list of them.

        Raises:
            ContextOverflowError: A prompt is longer than the context.
            TokenizerError: The vocabulary cannot encode a prompt.
            ModelFileError: The logits are not finite, or the mapped file changed since it was loaded.
            MemoryError: The KV cache of the prompt does not fit.
            ValueError: An option is out of range; the message names it.
            KeyboardInterrupt: Ctrl-C, within 200 ms; the model stays usable.

        Example:
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> r = m.generate("Once upon a time", max_tokens=8, seed=1)
            >>> r.usage.completion_tokens, r.finish_reason
            (8, 'length')
            >>> [c.usage.prompt_tokens for c in m.generate(["One", "One two three"], max_tokens=1)]
            [1, 3]
        """
        single = isinstance(prompt, str) or (bool(prompt) and all(type(item) is int for item in prompt))
        prompts: Any = [prompt] if single else prompt
        options = _fastq.Options(
            max_tokens, temperature, top_k, top_p, min_p, typical_p, repeat_penalty, repeat_last_n, presence_penalty,
            frequency_penalty, logit_bias, seed, stop, ignore_eos,
        )  # fmt: skip
        completions = [_completion(record) for record in self._engine.generate(prompts, options)]
        return completions[0] if single else completions

    def stream(
        self,
        prompt: str | list[int],
        *,
        max_tokens: int | None = 256,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        ignore_eos: bool = False,
    ) -> Stream:
        """Continue a prompt piece by piece. The pieces join to the text that :meth:`generate` returns.

        Every option is that of :meth:`generate`.

        Args:
            prompt: Text or token ids, as for :meth:`generate`.

        Returns:
            An iterator of ``str`` with ``cancel()`` and ``result``. Work is done while iterating.

        Raises:
            The exceptions of :meth:`generate`, while iterating.

        Example:
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> stream = m.stream("The capital of France is", max_tokens=2, temperature=0)
            >>> "".join(stream), stream.result.finish_reason
            (' Paris.', 'length')
        """
        options = _fastq.Options(
            max_tokens, temperature, top_k, top_p, min_p, typical_p, repeat_penalty, repeat_last_n, presence_penalty,
            frequency_penalty, logit_bias, seed, stop, ignore_eos,
        )  # fmt: skip
        return Stream(self._engine.stream(prompt, options))

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        ignore_eos: bool = False,
    ) -> ChatCompletion:
        """Answer a conversation, written out by the chat template of the file.

        Every option is that of :meth:`generate`.

        Args:
            messages: ``{"role": "system" | "user" | "assistant", "content": str}``, oldest first.

        Returns:
            The answer; ``.message`` can be appended to ``messages``.

        Raises:
            TemplateError: The file has no chat template, or it refuses the messages.
            TypeError: A message is not a mapping of JSON-like values.
            The exceptions of :meth:`generate`.

        Example:
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> m.chat([{"role": "user", "content": "What is 2+2?"}], max_tokens=24, temperature=0).message["role"]
            'assistant'
        """
        options = _fastq.Options(
            max_tokens, temperature, top_k, top_p, min_p, typical_p, repeat_penalty, repeat_last_n, presence_penalty,
            frequency_penalty, logit_bias, seed, stop, ignore_eos,
        )  # fmt: skip
        from fastq.results import ChatCompletion

        prompt = self._engine.chat_tokens(list(messages))
        return ChatCompletion(**vars(_completion(self._engine.generate([prompt], options)[0])))

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        repeat_penalty: float = 1.0,
        repeat_last_n: int = 64,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        logit_bias: Mapping[int, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        ignore_eos: bool = False,
    ) -> Stream:
        """Answer a conversation piece by piece; see :meth:`chat` and :meth:`stream`.

        Every option is that of :meth:`generate`.

        Args:
            messages: The conversation, oldest message first.

        Returns:
            An iterator of ``str`` with ``cancel()`` and ``result``.

        Raises:
            The exceptions of :meth:`chat`, at once for the template and while iterating for the rest.

        Example:
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> stream = m.stream_chat([{"role": "user", "content": "Hi"}], max_tokens=2, temperature=0)
            >>> len("".join(stream)) > 0
            True
        """
        options = _fastq.Options(
            max_tokens, temperature, top_k, top_p, min_p, typical_p, repeat_penalty, repeat_last_n, presence_penalty,
            frequency_penalty, logit_bias, seed, stop, ignore_eos,
        )  # fmt: skip
        return Stream(self._engine.stream(self._engine.chat_tokens(list(messages)), options))

    def apply_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        r"""The prompt that the file's chat template makes of a conversation.

        Args:
            messages: The conversation, oldest message first.
            tools: Tool descriptions in the OpenAI form, for templates that take them.
            add_generation_prompt: End with the opening of the assistant's answer.
            variables: Further variables for the template, such as ``enable_thinking``.

        Raises:
            TemplateError: There is no template, or it fails, refuses the messages or exceeds a limit.
            TypeError: A value is not JSON-like.

        Example:
            >>> from fastq import Model, default_model
            >>> Model(default_model(), context=512).apply_template([{"role": "user", "content": "Hi"}])[-40:]
            'user\nHi<|im_end|>\n<|im_start|>assistant\n'
        """
        return self._engine.apply_template(
            list(messages), None if tools is None else list(tools), add_generation_prompt, dict(variables or {})
        )

    def tokenize(self, text: str, *, bos: bool = True, special: bool = True) -> list[int]:
        """Token ids of a text.

        Bytes that a byte-level vocabulary has no token for are left out, as llama.cpp does: a few control characters
        and rare scripts in some models.

        Args:
            text: Any text.
            bos: Add what the file asks for at the ends (BOS, for some models EOS).
            special: Parse special tokens in the text; ``False`` takes them as plain text.

        Raises:
            TokenizerError: The vocabulary cannot encode it.

        Example:
            >>> from fastq import Model, default_model
            >>> Model(default_model(), context=512).tokenize("Hello world")
            [19556, 905]
        """
        return self._engine.tokenize(text, bos, special)

    def detokenize(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids. Bytes that are not valid UTF-8 become U+FFFD.

        Args:
            ids: Token ids.
            special: Show control tokens instead of leaving them out.

        Raises:
            ValueError: An id is outside the vocabulary.

        Example:
            >>> from fastq import Model, default_model
            >>> Model(default_model(), context=512).detokenize([19556, 905])
            'Hello world'
        """
        return self._engine.detokenize(list(ids), special)

    def logits(self, ids: Sequence[int], *, all: bool = False) -> NDArray[np.float32]:  # noqa: A002 - as DESIGN names it
        """Raw scores of the next token.

        Args:
            ids: Token ids, at least one, at most the context.
            all: Scores after every token instead of the last one.

        Returns:
            float32 ``(vocabulary,)``, or ``(len(ids), vocabulary)`` with ``all``. The bits do not depend on level,
            threads or ``prefill_chunk``.

        Raises:
            ValueError: No ids, or one outside the vocabulary.
            ContextOverflowError: More ids than the context.
            ModelFileError: The logits are not finite, so the weights are damaged.

        Example:
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> scores = m.logits(m.tokenize("The capital of France is"))
            >>> scores.shape, m.detokenize([int(scores.argmax())])
            ((49152,), ' Paris')
        """
        return self._engine.logits(list(ids), all)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        pooling: Literal["mean", "cls", "last"] | None = None,
        normalize: bool = True,
        truncate: bool = False,
    ) -> NDArray[np.float32]:
        """Vectors for texts, made of the hidden states of their tokens after the last norm.

        Encoders (BERT and its kin) are made for this; any other model works, too.

        Args:
            texts: One text or several.
            pooling: How one vector is made of those of the tokens: their mean, that of the first token (``"cls"``) or
                that of the last one. Default: what the file says (``pooling_type``), else the mean.
            normalize: Divide each vector by its length, so that a dot product is the cosine.
            truncate: Shorten texts that are longer than the context instead of raising.

        Returns:
            float32 ``(width,)`` for one text, ``(len(texts), width)`` for several. The bits of a vector depend on its
            text only, not on what else is embedded with it, nor on level and threads.

        Raises:
            ValueError: An unknown pooling.
            ContextOverflowError: A text has more tokens than the context, without ``truncate``.
            ModelFileError: The vectors are not finite, so the weights are damaged.

        Example:
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> a, b, c = m.embed(["A cat sat down.", "A kitten sits.", "Interest rates rose."])
            >>> bool(a @ b > a @ c)
            True
        """
        one = isinstance(texts, str)
        vectors = self._engine.embed([texts] if isinstance(texts, str) else list(texts), pooling, normalize, truncate)
        return vectors[0] if one else vectors

    @property
    def info(self) -> ModelInfo:
        """Facts about the model: architecture, sizes, types, level, threads."""
        if self._info is None:
            from fastq.results import ModelInfo

            self._info = ModelInfo(**self._engine.info())
        return self._info

    def close(self) -> None:
        """Free the memory now. Further calls raise ``ValueError``; calling ``close`` again does nothing."""
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<fastq.Model {self.info.path!r} {self.info.architecture} {self.info.parameters:,} parameters>"


def _completion(record: tuple[Any, ...]) -> Completion:
    from fastq.results import Completion, Timings, Usage

    text, tokens, finish_reason, prompt_tokens, seed, timings = record
    return Completion(
        text=text,
        tokens=tokens,
        finish_reason=finish_reason,
        usage=Usage(prompt_tokens, len(tokens)),
        timings=Timings(*timings),
        seed=seed,
    )
