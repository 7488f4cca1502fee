"""The same calls for asyncio. Each runs on a thread of its own while the event loop goes on.

A pool would make calls wait for each other that are computed together at no cost; a thread costs 50 microseconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fastq import _fastq
from fastq.stream import ChatStream, Stream

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastq.completion import ChatCompletion, ChatDelta, Completion, TokenLogprob

__all__ = ["AsyncChatStream", "AsyncStream"]

T = TypeVar("T")
AnyStream = TypeVar("AnyStream", bound=Stream)

Make = Callable[[_fastq.Cancel, asyncio.AbstractEventLoop], AnyStream]
"""Begins a stream, on the thread, for an event loop."""

AHEAD = 32
"""Pieces that wait for the event loop before the thread waits for it."""


def start(work: Callable[[], object]) -> None:
    """Run ``work`` on a thread with the context variables of the caller."""
    context = contextvars.copy_context()
    # Not a daemon: at exit the interpreter waits for a call that was cancelled, which is short.
    threading.Thread(target=context.run, args=(work,), name="fastq").start()


async def call(work: Callable[[_fastq.Cancel], T]) -> T:
    """What ``work`` gives, run on a thread. It is told by its argument when this task is cancelled."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    cancel = _fastq.Cancel()

    def deliver(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work(cancel)
        except BaseException as caught:  # it is raised where the call is awaited
            # A future does not take it: it ends generators.
            error = RuntimeError("StopIteration") if isinstance(caught, StopIteration) else caught
        _in_loop(loop, deliver, result, error)

    start(run)
    try:
        return await future
    finally:
        cancel.set()


def _in_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: Any) -> None:
    """Call a function in an event loop, unless it is closed: then nobody waits."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():
            raise


class _Channel(Generic[AnyStream]):
    """What a thread and an asynchronous iterator share. It does not know the iterator, which may be dropped."""

    def __init__(self, make: Make[AnyStream]) -> None:
        self.make = make
        self.cancel = _fastq.Cancel()
        self.pieces: deque[Any] = deque()
        self.room = threading.Semaphore(AHEAD)
        self.news = asyncio.Event()
        self.ended = asyncio.Event()
        self.stopped = False
        self.live: AnyStream | None = None
        self.stream: AnyStream | None = None
        self.error: BaseException | None = None

    def stop(self) -> None:
        """Let the thread end. Never waits."""
        self.stopped = True
        self.cancel.set()
        self.room.release()

    def run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Generate, on the thread."""
        stream, error = None, None
        try:
            self.live = stream = self.make(self.cancel, loop)
            pieces = stream.events() if isinstance(stream, ChatStream) else stream
            for piece in pieces:
                _in_loop(loop, self.push, piece)
                self.room.acquire()
                if self.stopped:
                    stream.cancel()
        except BaseException as caught:  # it is raised where the pieces are awaited
            error = caught
        _in_loop(loop, self.end, stream, error)

    def push(self, piece: object) -> None:
        self.pieces.append(piece)
        self.news.set()

    def end(self, stream: AnyStream | None, error: BaseException | None) -> None:
        self.stream, self.error = stream, error
        self.ended.set()
        self.news.set()


class AsyncStream(Generic[AnyStream]):
    """A running generation for asyncio: an asynchronous iterator of pieces of text that join to the whole text.

    Work begins with the first piece that is asked for, on a thread, and goes on a few pieces ahead. A stream that is
    dropped, closed (:meth:`aclose`), or left as an asynchronous context manager is cancelled.
    """

    _channel: _Channel[AnyStream]
    _started: bool

    def __init__(self, make: Make[AnyStream]) -> None:
        self._started = False
        self._channel = _Channel(make)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece: str = await self._next()
        return piece

    async def _next(self) -> Any:
        """What the thread has next: a piece of text, or a :class:`ChatDelta` of a chat."""
        channel = self._channel
        if not self._started:
            self._started = True
            loop = asyncio.get_running_loop()
            start(lambda: channel.run(loop))
        while not channel.pieces:
            if channel.ended.is_set():
                if channel.error is not None:
                    error, channel.error = channel.error, None
                    raise error
                raise StopAsyncIteration
            channel.news.clear()
            try:
                await channel.news.wait()
            except asyncio.CancelledError:
                channel.stop()
                raise
        channel.room.release()
        return channel.pieces.popleft()

    def cancel(self) -> None:
        """End the answer; the iterator then ends within 200 ms, with finish reason ``"cancelled"``. Never waits."""
        self._channel.stop()

    async def aclose(self) -> None:
        """End the answer if it has not ended, and wait for that."""
        self._channel.stop()
        if self._started:
            await self._channel.ended.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Where the constructor was refused there is none.
        if channel := getattr(self, "_channel", None):
            channel.stop()

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """With ``logprobs=``, how likely each token so far was; a few may be ahead of the pieces."""
        return [] if self._channel.live is None else self._channel.live.logprobs

    @property
    def result(self) -> Completion:
        """The record of a stream that has ended.

        Raises:
            ValueError: The stream is still under way.
        """
        if self._channel.stream is None:
            raise ValueError("the stream has not ended: iterate to its end, or await aclose()")
        return self._channel.stream.result


class AsyncChatStream(AsyncStream[ChatStream]):
    """The answer to a conversation for asyncio: an :class:`AsyncStream` of what is said, without reasoning and calls.

    Iterate over :meth:`events` instead to have those, too.
    """

    async def __anext__(self) -> str:
        while True:
            delta: ChatDelta = await self._next()
            if delta.kind == "content":
                return delta.text

    async def events(self) -> AsyncIterator[ChatDelta]:
        """All that the answer consists of, as it comes; see :meth:`ChatStream.events`."""
        while True:
            try:
                delta: ChatDelta = await self._next()
            except StopAsyncIteration:
                return
            yield delta

    if TYPE_CHECKING:

        @property
        def result(self) -> ChatCompletion:
            """As of any stream, with ``.message`` and ``.tool_calls``."""
