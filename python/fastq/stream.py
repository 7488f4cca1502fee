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
    from fastq.completion import ChatCompletion, ChatDelta, Completion

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

    def __init__(self, stream: _fastq.Stream, schema: Any = None) -> None:
        self._stream = stream
        self._schema = schema
        self._result = None

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

    Iterate over :meth:`events` instead to have those, too.
    """

    _result: ChatCompletion | None
    _deltas: deque[ChatDelta]
    _on_end: Callable[[ChatStream, bool], None] | None

    def __init__(
        self, stream: _fastq.Stream, schema: Any = None, on_end: Callable[[ChatStream, bool], None] | None = None
    ) -> None:
        from collections import deque

        super().__init__(stream, schema)
        self._deltas = deque()
        self._on_end = on_end

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
            except Exception:
                self._end(failed=True)
                raise
            if deltas is None:
                self._end()
                return
            self._deltas.extend(ChatDelta(*delta) for delta in deltas)

    def cancel(self) -> None:
        """End the answer; see :meth:`Stream.cancel`."""
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

            self._result = chat_completion(self._stream.completion(), self._schema)
        return self._result
