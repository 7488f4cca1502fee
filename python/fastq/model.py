"""The model: load once, generate from any thread."""

from __future__ import annotations

import os
import sys

from fastq import _fastq
from fastq.files import described
from fastq.stream import ChatStream, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Literal, overload

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Unpack

    from fastq.asynchronous import AsyncChatStream, AsyncStream
    from fastq.completion import ChatCompletion, Completion
    from fastq.conversation import Conversation
    from fastq.options import ChatOptions, GenerateOptions
    from fastq.results import ModelInfo, RerankResult
    from fastq.session import Session

__all__ = ["Model"]

DEFAULT_MAX_TOKENS = 256
"""Of ``generate``; a chat goes on until the model ends it."""


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
        draft: A smaller model with the same vocabulary, or its file, that guesses tokens ahead: the default of
            ``speculate=``. The answers stay the same.
        prompt_cache: A folder for the beginnings of prompts that were computed, made if it is not there: another
            process with the same model does not compute them again. It holds what was asked, so it is for its owner
            only.
        prompt_cache_bytes: The most bytes the folder may take; what was used longest ago gives way.

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
    _draft: Model | None

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
        draft: Model | str | os.PathLike[str] | None = None,
        prompt_cache: str | os.PathLike[str] | None = None,
        prompt_cache_bytes: int = 2 << 30,
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
            prompt_cache=None if prompt_cache is None else (os.fspath(prompt_cache), prompt_cache_bytes),
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
        if draft is not None and not isinstance(draft, Model):
            draft = Model(draft, context=self.info.context, threads=threads, mmap=mmap, level=level)
        self._draft = draft

    if TYPE_CHECKING:

        @overload
        def generate(
            self, prompt: str | list[int], *, n: None = None, **options: Unpack[GenerateOptions]
        ) -> Completion: ...
        @overload
        def generate(
            self, prompt: list[str] | list[list[int]], *, n: None = None, **options: Unpack[GenerateOptions]
        ) -> list[Completion]: ...
        @overload
        def generate(
            self, prompt: str | list[int], *, n: int, **options: Unpack[GenerateOptions]
        ) -> list[Completion]: ...
        @overload
        def generate(
            self, prompt: list[str] | list[list[int]], *, n: int, **options: Unpack[GenerateOptions]
        ) -> list[list[Completion]]: ...

    def generate(
        self,
        prompt: str | list[int] | list[str] | list[list[int]],
        *,
        n: int | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion | list[Completion] | list[list[Completion]]:
        """Continue a prompt, or several as one batch.

        Args:
            prompt: Text (special tokens in it are parsed, and BOS is added as the file asks), or token ids taken as
                they are; a list of either is a batch, answered in its order. Every answer equals the one of a call of
                its own.
            n: How many answers to each prompt, with the seeds ``seed``, ``seed + 1``, … The prompt is computed once.
            options: See :class:`fastq.GenerateOptions`.

        Returns:
            The completion; for a list or with ``n``, a list of them; for a list with ``n``, a list of lists.

        Raises:
            ContextOverflowError: A prompt is longer than the context.
            TokenizerError: The vocabulary cannot encode a prompt.
            ModelFileError: The logits are not finite, or the mapped file changed since it was loaded.
            MemoryError: The KV cache of the prompt does not fit.
            TypeError: An option is not known, or has a wrong type; the message names it.
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
            >>> [c.seed for c in m.generate("Once", n=3, seed=7, max_tokens=1)]
            [7, 8, 9]
        """
        return self._generate(prompt, n, dict(options), None)

    if TYPE_CHECKING:

        @overload
        async def agenerate(
            self, prompt: str | list[int], *, n: None = None, **options: Unpack[GenerateOptions]
        ) -> Completion: ...
        @overload
        async def agenerate(
            self, prompt: list[str] | list[list[int]], *, n: None = None, **options: Unpack[GenerateOptions]
        ) -> list[Completion]: ...
        @overload
        async def agenerate(
            self, prompt: str | list[int], *, n: int, **options: Unpack[GenerateOptions]
        ) -> list[Completion]: ...
        @overload
        async def agenerate(
            self, prompt: list[str] | list[list[int]], *, n: int, **options: Unpack[GenerateOptions]
        ) -> list[list[Completion]]: ...

    async def agenerate(
        self,
        prompt: str | list[int] | list[str] | list[list[int]],
        *,
        n: int | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion | list[Completion] | list[list[Completion]]:
        """The same as :meth:`generate` for asyncio: computed on a thread, so that the event loop goes on.

        Calls that run at the same time are computed together. Cancelling the task ends the call within 200 ms.

        Args:
            prompt: As for :meth:`generate`.
            n: How many answers to each prompt.
            options: See :class:`fastq.GenerateOptions`.

        Example:
            >>> import asyncio
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> async def both():
            ...     return await asyncio.gather(*(m.agenerate(p, max_tokens=2) for p in ["One", "Two"]))
            >>> len(asyncio.run(both()))
            2
        """
        from fastq.asynchronous import call

        return await call(lambda cancel: self._generate(prompt, n, dict(options), cancel))

    def _generate(
        self, prompt: Any, n: int | None, options: dict[str, Any], cancel: _fastq.Cancel | None
    ) -> Completion | list[Completion] | list[list[Completion]]:
        from fastq.completion import completion

        single = isinstance(prompt, str) or (bool(prompt) and all(type(item) is int for item in prompt))
        prepared, schema = self._prepare(options, DEFAULT_MAX_TOKENS)
        records = self._engine.generate([prompt] if single else prompt, prepared, 1 if n is None else n, cancel)
        answers = [completion(record, schema) for record in records]
        if n is None:
            return answers[0] if single else answers
        return answers if single else [answers[i : i + n] for i in range(0, len(answers), n)]

    def _prepare(self, options: dict[str, Any], max_tokens: int | None) -> tuple[_fastq.Options, Any]:
        """The options for the engine, and what ``.parsed`` is made with."""
        schema = None
        # Most calls have none of these: they do not wait for the import.
        if not options.keys().isdisjoint(("schema", "regex", "choices", "grammar")):
            from fastq.schema import constrain

            schema = constrain(options)
        draft = options.get("speculate", self._draft)
        options["speculate"] = draft._engine if isinstance(draft, Model) else draft
        return _fastq.Options(options, max_tokens), schema

    def stream(self, prompt: str | list[int], **options: Unpack[GenerateOptions]) -> Stream:
        """Continue a prompt piece by piece. The pieces join to the text that :meth:`generate` returns.

        Args:
            prompt: Text or token ids, as for :meth:`generate`.
            options: See :class:`fastq.GenerateOptions`.

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
        prepared, schema = self._prepare(dict(options), DEFAULT_MAX_TOKENS)
        return Stream(self._engine.stream(prompt, prepared, None), schema)

    def astream(self, prompt: str | list[int], **options: Unpack[GenerateOptions]) -> AsyncStream[Stream]:
        """The same as :meth:`stream` for asyncio: an asynchronous iterator of pieces, computed on a thread.

        Args:
            prompt: Text or token ids, as for :meth:`generate`.
            options: See :class:`fastq.GenerateOptions`.

        Example:
            >>> import asyncio
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> async def text():
            ...     stream = m.astream("The capital of France is", max_tokens=2, temperature=0)
            ...     return "".join([piece async for piece in stream])
            >>> asyncio.run(text())
            ' Paris.'
        """
        from fastq.asynchronous import AsyncStream

        prepared, schema = self._prepare(dict(options), DEFAULT_MAX_TOKENS)
        return AsyncStream(lambda cancel, _: Stream(self._engine.stream(prompt, prepared, cancel), schema))

    if TYPE_CHECKING:

        @overload
        def chat(
            self,
            messages: Sequence[Mapping[str, Any]],
            *,
            n: None = None,
            run_tools: bool = False,
            max_rounds: int = 8,
            **options: Unpack[ChatOptions],
        ) -> ChatCompletion: ...
        @overload
        def chat(
            self,
            messages: Sequence[Mapping[str, Any]],
            *,
            n: int,
            run_tools: bool = False,
            max_rounds: int = 8,
            **options: Unpack[ChatOptions],
        ) -> list[ChatCompletion]: ...

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        n: int | None = None,
        run_tools: bool = False,
        max_rounds: int = 8,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | list[ChatCompletion]:
        """Answer a conversation, written out by the chat template of the file.

        Args:
            messages: ``{"role": "system" | "user" | "assistant" | "tool", "content": str}``, oldest first.
            n: How many answers, with the seeds ``seed``, ``seed + 1``, …
            run_tools: Run the functions among ``tools`` that the model calls, and give it their results, until it
                answers with a text. What a function raises is told to the model.
            max_rounds: How many times tools are run; the answer after the last may still ask for calls.
            options: See :class:`fastq.ChatOptions` and :class:`fastq.GenerateOptions`.

        Returns:
            The answer; ``.message`` can be appended to ``messages``, and ``.messages`` is all that the call added.

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
        conversation = self._conversation(messages, options, n, run_tools, max_rounds, asynchronous=False)
        answers = self._answer(conversation, n, None)
        while calls := conversation.calls(answers):
            conversation.add(answers[0], [conversation.tools.run(call) for call in calls])
            answers = self._answer(conversation, None, None)
        return conversation.finish(answers[0]) if n is None else answers

    if TYPE_CHECKING:

        @overload
        async def achat(
            self,
            messages: Sequence[Mapping[str, Any]],
            *,
            n: None = None,
            run_tools: bool = False,
            max_rounds: int = 8,
            **options: Unpack[ChatOptions],
        ) -> ChatCompletion: ...
        @overload
        async def achat(
            self,
            messages: Sequence[Mapping[str, Any]],
            *,
            n: int,
            run_tools: bool = False,
            max_rounds: int = 8,
            **options: Unpack[ChatOptions],
        ) -> list[ChatCompletion]: ...

    async def achat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        n: int | None = None,
        run_tools: bool = False,
        max_rounds: int = 8,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | list[ChatCompletion]:
        """The same as :meth:`chat` for asyncio; see :meth:`agenerate`.

        Args:
            messages: The conversation, oldest message first.
            n: How many answers.
            run_tools: Run the tools that the model calls. Coroutine functions are awaited, others run on a thread.
            max_rounds: How many times tools are run.
            options: See :class:`fastq.ChatOptions` and :class:`fastq.GenerateOptions`.

        Example:
            >>> import asyncio
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> answer = asyncio.run(m.achat([{"role": "user", "content": "Hi"}], max_tokens=2))
            >>> answer.message["role"]
            'assistant'
        """
        from fastq.asynchronous import call

        conversation = self._conversation(messages, options, n, run_tools, max_rounds, asynchronous=True)
        answers = await call(lambda cancel: self._answer(conversation, n, cancel))
        while calls := conversation.calls(answers):
            conversation.add(answers[0], [await conversation.tools.arun(call) for call in calls])
            answers = await call(lambda cancel: self._answer(conversation, None, cancel))
        return conversation.finish(answers[0]) if n is None else answers

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        run_tools: bool = False,
        max_rounds: int = 8,
        **options: Unpack[ChatOptions],
    ) -> ChatStream:
        """Answer a conversation piece by piece; see :meth:`chat` and :meth:`stream`.

        Args:
            messages: The conversation, oldest message first.
            run_tools: As for :meth:`chat`; tools run while iterating.
            max_rounds: As for :meth:`chat`.
            options: See :class:`fastq.ChatOptions` and :class:`fastq.GenerateOptions`.

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
        conversation = self._conversation(messages, options, None, run_tools, max_rounds, asynchronous=False)
        return self._stream_chat(conversation, None)

    def astream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        run_tools: bool = False,
        max_rounds: int = 8,
        **options: Unpack[ChatOptions],
    ) -> AsyncChatStream:
        """The same as :meth:`stream_chat` for asyncio; see :meth:`astream`.

        Args:
            messages: The conversation, oldest message first.
            run_tools: As for :meth:`achat`.
            max_rounds: As for :meth:`chat`.
            options: See :class:`fastq.ChatOptions` and :class:`fastq.GenerateOptions`.

        Example:
            >>> import asyncio
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> async def text():
            ...     stream = m.astream_chat([{"role": "user", "content": "Hi"}], max_tokens=2, temperature=0)
            ...     return "".join([piece async for piece in stream])
            >>> len(asyncio.run(text())) > 0
            True
        """
        from fastq.asynchronous import AsyncChatStream

        conversation = self._conversation(messages, options, None, run_tools, max_rounds, asynchronous=True)

        def begin(cancel: _fastq.Cancel, loop: AbstractEventLoop) -> ChatStream:
            conversation.tools.loop = loop
            return self._stream_chat(conversation, cancel)

        return AsyncChatStream(begin)

    def _conversation(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, Any],
        n: int | None,
        run_tools: bool,
        max_rounds: int,
        *,
        asynchronous: bool,
    ) -> Conversation:
        from fastq.conversation import Conversation

        if run_tools and n is not None:
            raise ValueError("n and run_tools exclude each other: every answer would need calls of its own")
        rest = dict(options)
        tools, choice, variables = (rest.pop(name, None) for name in ("tools", "tool_choice", "variables"))
        rounds = max_rounds if run_tools else None
        conversation = Conversation(messages, tools, choice, variables, rounds, asynchronous=asynchronous)
        conversation.options, conversation.schema = self._prepare(rest, None)
        return conversation

    def _answer(self, chat: Conversation, n: int | None, cancel: _fastq.Cancel | None) -> list[ChatCompletion]:
        from fastq.completion import chat_completion

        tools, samples = chat.tools.descriptions, 1 if n is None else n
        records = self._engine.chat(
            chat.messages, tools, chat.tool_choice, chat.variables, chat.options, samples, cancel
        )
        return [chat_completion(record, chat.schema) for record in records]

    def _stream_chat(
        self,
        chat: Conversation,
        cancel: _fastq.Cancel | None,
        kept: _fastq.Kept | None = None,
        on_end: Callable[[ChatStream, bool], None] | None = None,
    ) -> ChatStream:
        def begin(kept: _fastq.Kept | None) -> _fastq.Stream:
            tools, choice = chat.tools.descriptions, chat.tool_choice
            return self._engine.stream_chat(
                chat.messages, tools, choice, chat.variables, chat.options, cancel, kept, chat.keep
            )

        return ChatStream(chat, begin, kept, on_end)

    def session(self, *, system: str | None = None, **options: Unpack[ChatOptions]) -> Session:
        """A conversation that remembers what was computed: each turn computes only its new tokens.

        Args:
            system: A system message.
            options: Of all answers; see :class:`fastq.ChatOptions` and :class:`fastq.GenerateOptions`.

        Raises:
            TypeError: An option is not known, or has a wrong type.

        Example:
            >>> from fastq import Model, default_model
            >>> s = Model(default_model(), context=512).session(system="You are terse.", max_tokens=4)
            >>> s.say("Hi").message["role"], [message["role"] for message in s.messages]
            ('assistant', ['system', 'user', 'assistant'])
        """
        from fastq.session import Session

        # Refused here and not in the first turn.
        self._conversation((), options, None, False, 0, asynchronous=False)
        return Session(self, system, options)

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

    def score(self, text: str | Sequence[int]) -> NDArray[np.float32]:
        """Log-probabilities of the tokens of a text, each given those before it.

        The sum is the log-probability of the text, and ``exp(-mean)`` its perplexity. Logits are held for a few tokens
        at a time, however long the text is.

        Args:
            text: Text, tokenized as by :meth:`tokenize`, or token ids.

        Returns:
            float32 ``(tokens - 1,)``, natural logarithms: the first token has nothing before it. Where the file asks
            for BOS, that is the first, and every token of the text has its value.

        Raises:
            ContextOverflowError: More tokens than the context.
            ValueError: An id is outside the vocabulary.

        Example:
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> paris, rome = (m.score(f"The capital of France is {city}")[-1] for city in ("Paris", "Rome"))
            >>> bool(paris > rome)
            True
        """
        return self._engine.score(self.tokenize(text) if isinstance(text, str) else list(text))

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

    def rerank(self, query: str, documents: Sequence[str]) -> list[RerankResult]:
        """Order documents by how well they answer a query, with a model that was made for it.

        Such a model has a head that ranks: ``pooling_type`` 4 and the tensor ``cls.output.weight``, as llama.cpp writes
        them for Qwen3-Reranker and BGE rerankers. Query and document are put into the template of the file
        (``tokenizer.chat_template.rerank``); encoders read them as two texts.

        Args:
            query: What is asked.
            documents: Texts, of which each is scored on its own.

        Returns:
            The best first; of equal ones, the earlier first. The score of a language model is the probability of "yes",
            that of an encoder is a logit.

        Raises:
            UnsupportedModelError: The model has no such head; the message says what is missing.
            ContextOverflowError: Query and document together are longer than the context.

        Example:
            >>> from fastq import Model, UnsupportedModelError, default_model
            >>> try:
            ...     Model(default_model(), context=512).rerank("Where is Paris?", ["In France.", "A cat."])
            ... except UnsupportedModelError as error:
            ...     print("pooling_type 4" in str(error))
            True
        """
        from fastq.results import RerankResult

        scores = self._engine.rerank(query, list(documents)).tolist()
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        return [RerankResult(index, scores[index]) for index in order]

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
