"""The server, from Python."""

from __future__ import annotations

from fastq import _fastq
from fastq.model import Model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

__all__ = ["serve"]


def serve(
    model: Model | str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | None = None,
    origins: Sequence[str] = (),
    alias: str | None = None,
    parallel: int = 8,
    queue: int = 64,
    grace: float = 10.0,
    verbose: bool = False,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve a model with the interface of OpenAI, and a page to chat with it, until Ctrl-C.

    The same as ``fastq serve``. Answers under way may go on for a while when it ends. Calls of the model by other
    threads of the process go on beside it.

    Args:
        model: A model, or the file of one.
        host: Address to listen on. One that other machines can reach needs an ``api_key``.
        port: Port; 0 takes one that is free.
        api_key: What clients must send as ``Authorization: Bearer KEY``.
        origins: Origins (``https://example.com``) of other sites whose pages may use the server.
        alias: What the model is called; by default as its file.
        parallel: Requests that are computed at once.
        queue: Requests that may wait; more are refused with 429.
        grace: Seconds that answers under way may go on when the server ends.
        verbose: A line per request on stderr; never what was asked or answered.
        ready: Called with the address, such as ``"http://127.0.0.1:8080"``, as soon as clients can connect.

    Raises:
        OSError: The address cannot be listened on.
        ValueError: An option is out of range, or the address is reachable from other machines without a key.

    Example:
        >>> import fastq
        >>> m = fastq.Model(fastq.default_model(), context=512)
        >>> fastq.serve(m, port=0, ready=print)  # doctest: +SKIP
        http://127.0.0.1:40321
    """
    engine = (model if isinstance(model, Model) else Model(model))._engine
    _fastq.serve(engine, host, port, api_key, list(origins), alias, parallel, queue, grace, verbose, ready)
