"""Answers that come piece by piece."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    from fastq import _fastq
    from fastq.completion import ChatCompletion, ChatDelta, Completion, TokenLogprob
    from fastq.conversation import Conversation

__all__ = ["ChatStream", "Stream"]


class Stream:
    """A running generation: an iterator of pieces of text, each valid UTF-8, that join to the whole text.

    Work is done while iterating. Any thread may call :meth:`cancel`; a stream that is dropped is cancelled, too, and so
    is one that is left as a context manager. The record of the whole answer is in :attr:`result`.

    Example:
        >>> from fastq import Model, default_model
        >>> m = Model(default_model(), context=512)
        >>> with m.stream("The capital of France is", temperature=0) as stream:
        ...     next(stream)
        ' Paris'
        >>> stream.result.finish_reason
        'cancelled'
    """

    _stream: _fastq.Stream
    _schema: Any
    _result: Completion | None
    _logprobs: list[TokenLogprob]

    def __init__(self, stream: _fastq.Stream, schema: Any = None) -> None:
        self._stream = stream
        self._schema = schema
        self._result = None
        self._logprobs = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self._stream.next_piece()
        if piece is None:
            raise StopIteration
        return piece

    def cancel(self) -> None:
        """End the answer, also while another thread waits for a piece: its iterator then ends within 200 ms.

        The finish reason is ``"cancelled"``.
        """
        self._stream.cancel()

    def close(self) -> None:
        """End the answer if it has not ended, and free its memory; the same as :meth:`cancel`."""
        self._stream.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """With ``logprobs=``, how likely each token of the pieces so far was; a copy.

        A token whose text is held back (it may become a stop string, or is part of a character) comes with the piece
        that has it.
        """
        from fastq.completion import logprob

        self._logprobs += [logprob(*of) for of in self._stream.logprobs(len(self._logprobs))]
        return [*self._logprobs]

    @property
    def result(self) -> Completion:
        """Text, tokens, finish reason and timings of a stream that has ended or was cancelled.

        Raises:
            ValueError: The stream is still under way.
        """
        if self._result is None:
            from fastq.completion import completion

            self._result = completion(self._stream.completion(), self._schema)
        return self._result


class ChatStream(Stream):
    """The answer to a conversation, piece by piece: a :class:`Stream` of what is said, without reasoning and calls.

    Iterate over :meth:`events` instead to have those, too. With ``run_tools=True``, tools run while iterating, and what
    the model says then follows; :attr:`Stream.logprobs` are those of what it says since.
    """

    _result: ChatCompletion | None
    _deltas: deque[ChatDelta]
    _chat: Conversation
    _begin: Callable[[_fastq.Kept | None], _fastq.Stream]
    _on_end: Callable[[ChatStream, bool], None] | None
    _cancelled: bool

    def __init__(
        self,
        chat: Conversation,
        begin: Callable[[_fastq.Kept | None], _fastq.Stream],
        kept: _fastq.Kept | None = None,
        on_end: Callable[[ChatStream, bool], None] | None = None,
    ) -> None:
        from collections import deque

        super().__init__(begin(kept), chat.schema)
        self._deltas = deque()
        self._chat = chat
        self._begin = begin
        self._on_end = on_end
        self._cancelled = False

    def __next__(self) -> str:
        for delta in self.events():
            if delta.kind == "content":
                return delta.text
        raise StopIteration

    def events(self) -> Iterator[ChatDelta]:
        """All that the answer consists of, as it comes: text, reasoning, calls of tools and their arguments."""
        from fastq.completion import ChatDelta

        while True:
            while self._deltas:
                yield self._deltas.popleft()
            try:
                deltas = self._stream.next_deltas()
                results = self._run_tools() if deltas is None else []
            except Exception:
                self._end(failed=True)
                raise
            if deltas is not None:
                self._deltas.extend(ChatDelta(*delta) for delta in deltas)
            elif not results:
                self._end()
                return
            for i, message in enumerate(results):
                self._deltas.append(
                    ChatDelta("tool_result", message["content"], i, message["tool_call_id"], message["name"])
                )

    def _run_tools(self) -> list[dict[str, Any]]:
        """Runs what the answer calls, and begins the next one; gives the results, none where nothing is to be run."""
        from fastq.completion import chat_completion

        if self._cancelled or self._chat.rounds == 0:
            return []
        answer = chat_completion(self._stream.completion())
        results = [self._chat.tools.run(call) for call in self._chat.calls([answer])]
        if results and not self._cancelled:
            self._chat.add(answer, results)
            kept = self._stream.take_kept() if self._chat.keep else None
            self._stream, self._logprobs = self._begin(kept), []
            return results
        return []

    def cancel(self) -> None:
        """End the answer; see :meth:`Stream.cancel`. Tools that are running are not stopped."""
        self._cancelled = True
        super().cancel()
        self._end()

    def close(self) -> None:
        """The same as :meth:`cancel`."""
        self.cancel()

    def __del__(self) -> None:
        # A session learns of answers that are dropped; a constructor that failed has nothing to tell.
        if getattr(self, "_on_end", None) is not None:
            self.cancel()

    def _end(self, *, failed: bool = False) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, failed)

    @property
    def result(self) -> ChatCompletion:
        """The whole answer of a stream that has ended or was cancelled, with ``.message`` and ``.tool_calls``.

        Raises:
            ValueError: The stream is still under way.
        """
        if self._result is None:
            from fastq.completion import chat_completion

            answer = chat_completion(self._stream.completion(), self._schema)
            self._result = self._chat.finish(answer)
        return self._result
