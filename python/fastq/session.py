"""A conversation that remembers what was computed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping

    from typing_extensions import Unpack

    from fastq import _fastq
    from fastq.asynchronous import AsyncChatStream
    from fastq.completion import ChatCompletion
    from fastq.conversation import Conversation
    from fastq.model import Model
    from fastq.options import ChatOptions
    from fastq.stream import ChatStream

__all__ = ["Session"]


class Session:
    """A conversation: each turn computes only its new tokens. Made by :meth:`fastq.Model.session`.

    The answers are those that :meth:`Model.chat` gives to the same messages. A session answers one message at a time;
    to go two ways, :meth:`fork` it.

    Example:
        >>> from fastq import Model, default_model
        >>> m = Model(default_model(), context=512)
        >>> s = m.session(system="You are terse.", temperature=0, max_tokens=4)
        >>> first = s.say("Hi")
        >>> other = s.fork()
        >>> second = s.say("And now?")
        >>> second.usage.cached_tokens > first.usage.prompt_tokens, len(s.messages), len(other.messages)
        (True, 5, 3)
    """

    _model: Model
    _messages: list[dict[str, Any]]
    _options: dict[str, Any]
    _kept: _fastq.Kept | None
    _lock: threading.Lock

    def __init__(self, model: Model, system: str | None, options: Mapping[str, Any]) -> None:
        self._model = model
        self._options = dict(options)
        self._messages = []
        self._kept = None
        self._lock = threading.Lock()
        self.reset(system=system)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The conversation so far, oldest message first; a copy."""
        return [*self._messages]

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are kept for the next turn."""
        return 0 if self._kept is None else len(self._kept)

    def say(
        self, text: str, *, run_tools: bool = False, max_rounds: int = 8, **options: Unpack[ChatOptions]
    ) -> ChatCompletion:
        """Answer a message of the user.

        Args:
            text: What the user says.
            run_tools: As for :meth:`Model.chat`.
            max_rounds: As for :meth:`Model.chat`.
            options: What differs from the options of the session; see :class:`fastq.ChatOptions`.

        Returns:
            The answer; it is part of the conversation now. ``usage.cached_tokens`` says how much was not computed
            again.

        Raises:
            ValueError: Another answer is under way.
            The exceptions of :meth:`Model.chat`; the conversation is then as before.
        """
        return self._say(text, run_tools, max_rounds, options)

    async def asay(
        self, text: str, *, run_tools: bool = False, max_rounds: int = 8, **options: Unpack[ChatOptions]
    ) -> ChatCompletion:
        """The same as :meth:`say` for asyncio; see :meth:`Model.agenerate`.

        Args:
            text: What the user says.
            run_tools: As for :meth:`Model.achat`.
            max_rounds: As for :meth:`Model.chat`.
            options: What differs from the options of the session; see :class:`fastq.ChatOptions`.

        Raises:
            The exceptions of :meth:`say`; when the task is cancelled, the conversation is as before.
        """
        import asyncio

        from fastq.asynchronous import call

        loop = asyncio.get_running_loop()
        return await call(lambda cancel: self._say(text, run_tools, max_rounds, options, cancel, loop))

    def stream(
        self, text: str, *, run_tools: bool = False, max_rounds: int = 8, **options: Unpack[ChatOptions]
    ) -> ChatStream:
        """Answer a message of the user piece by piece.

        What has been said becomes part of the conversation when the stream ends, also where it is cancelled or dropped.

        Args:
            text: What the user says.
            run_tools: As for :meth:`Model.stream_chat`.
            max_rounds: As for :meth:`Model.chat`.
            options: What differs from the options of the session; see :class:`fastq.ChatOptions`.

        Raises:
            ValueError: Another answer is under way.
            The exceptions of :meth:`Model.stream_chat`.
        """
        return self._stream(text, run_tools, max_rounds, options)

    def astream(
        self, text: str, *, run_tools: bool = False, max_rounds: int = 8, **options: Unpack[ChatOptions]
    ) -> AsyncChatStream:
        """The same as :meth:`stream` for asyncio; see :meth:`Model.astream_chat`.

        Args:
            text: What the user says.
            run_tools: As for :meth:`Model.achat`.
            max_rounds: As for :meth:`Model.chat`.
            options: What differs from the options of the session; see :class:`fastq.ChatOptions`.

        Raises:
            The exceptions of :meth:`stream`, while iterating.
        """
        from fastq.asynchronous import AsyncChatStream

        return AsyncChatStream(lambda cancel, loop: self._stream(text, run_tools, max_rounds, options, cancel, loop))

    def _say(
        self,
        text: str,
        run_tools: bool,
        max_rounds: int,
        options: Mapping[str, Any],
        cancel: _fastq.Cancel | None = None,
        loop: AbstractEventLoop | None = None,
    ) -> ChatCompletion:
        self._begin()
        try:
            chat = self._conversation(text, options, run_tools, max_rounds, loop)
            kept, self._kept = self._kept, None
            stream = self._model._stream_chat(chat, cancel, kept)
            for _ in stream.events():
                pass
            self._kept = stream._stream.take_kept()
            answer = stream.result
            # A task that was cancelled has no answer.
            if cancel is None or answer.finish_reason != "cancelled":
                self._messages = [*chat.messages, answer.message]
            return answer
        finally:
            self._lock.release()

    def _stream(
        self,
        text: str,
        run_tools: bool,
        max_rounds: int,
        options: Mapping[str, Any],
        cancel: _fastq.Cancel | None = None,
        loop: AbstractEventLoop | None = None,
    ) -> ChatStream:
        self._begin()
        try:
            chat = self._conversation(text, options, run_tools, max_rounds, loop)

            def end(stream: ChatStream, failed: bool) -> None:
                try:
                    if not failed:
                        self._messages = [*chat.messages, stream.result.message]
                        self._kept = stream._stream.take_kept()
                finally:
                    self._lock.release()

            kept, self._kept = self._kept, None
            return self._model._stream_chat(chat, cancel, kept, end)
        except BaseException:
            self._lock.release()
            raise

    def fork(self) -> Session:
        """A second conversation that begins with this one. Memory is shared until the two differ.

        Raises:
            ValueError: An answer is under way.
        """
        self._begin()
        try:
            other = Session(self._model, None, self._options)
            other._messages = self.messages
            other._kept = None if self._kept is None else self._kept.fork()
            return other
        finally:
            self._lock.release()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write messages and computed tokens to a file, whole or not at all. Options are not part of it.

        Raises:
            OSError: It cannot be written.
            ValueError: An answer is under way, or the messages are too large for a file.

        Example:
            >>> import os, tempfile
            >>> from fastq import Model, default_model
            >>> m = Model(default_model(), context=512)
            >>> s = m.session(system="You are terse.", max_tokens=4)
            >>> _ = s.say("Hi")
            >>> path = os.path.join(tempfile.mkdtemp(), "talk.kv")
            >>> s.save(path)
            >>> m.session().load(path).messages == s.messages
            True
        """
        self._begin()
        try:
            self._model._engine.save_kept(self._kept, os.fspath(path), {"messages": self._messages})
        finally:
            self._lock.release()

    def load(self, path: str | os.PathLike[str]) -> Session:
        """Go on with a conversation that was saved, in place of this one; gives the session itself.

        Raises:
            FileNotFoundError: There is no such file.
            SessionError: The file is damaged, or one of another model.
            ContextOverflowError: It is longer than the context.
            ValueError: An answer is under way.
        """
        self._begin()
        try:
            kept, extra = self._model._engine.load_kept(os.fspath(path))
            messages = extra.get("messages")
            if not isinstance(messages, list):
                from fastq.errors import SessionError

                raise SessionError(f"{os.fspath(path)}: the file holds a prompt, expected a conversation with messages")
            self._messages, self._kept = messages, kept
        finally:
            self._lock.release()
        return self

    def reset(self, *, system: str | None = None) -> None:
        """Begin anew, with another system message or none.

        Raises:
            ValueError: An answer is under way.
        """
        self._begin()
        self._messages = [] if system is None else [{"role": "system", "content": system}]
        self._lock.release()

    def _begin(self) -> list[dict[str, Any]]:
        """Take the session for one call; gives its messages."""
        if not self._lock.acquire(blocking=False):
            raise ValueError("the session is answering: wait for that, cancel the stream, or fork the session before")
        return self._messages

    def _conversation(
        self,
        text: str,
        options: Mapping[str, Any],
        run_tools: bool,
        max_rounds: int,
        loop: AbstractEventLoop | None,
    ) -> Conversation:
        messages = [*self._messages, {"role": "user", "content": text}]
        merged, asynchronous = {**self._options, **options}, loop is not None
        chat = self._model._conversation(messages, merged, None, run_tools, max_rounds, asynchronous=asynchronous)
        chat.keep = True
        chat.tools.loop = loop
        return chat

    def __repr__(self) -> str:
        return f"<fastq.Session of {len(self._messages)} messages, {self.cached_tokens} tokens kept>"
