"""Exceptions of fastq.

What Python has a name for keeps it: a missing file is ``FileNotFoundError``, a file that the system refuses
``OSError``, a bad argument ``ValueError`` or ``TypeError``, lack of memory ``MemoryError``, Ctrl-C
``KeyboardInterrupt``. Everything else derives from :class:`FastqError`.
"""

from __future__ import annotations

__all__ = [
    "Cancelled",
    "ContextOverflowError",
    "FastqError",
    "GrammarError",
    "ModelFileError",
    "SessionError",
    "TemplateError",
    "TokenizerError",
    "UnsupportedModelError",
]


class FastqError(Exception):
    """Base of the exceptions that fastq defines."""


class ModelFileError(FastqError):
    """The bytes of a model file are malformed, truncated, inconsistent or not finite.

    Attributes:
        path: The file, or ``None`` when the fault shows only while computing.
        offset: Where the fault is, in bytes from the start of the file, or ``None`` when it has no single place.
        what: The tensor or key, what was expected and what was found.
    """

    path: str | None
    offset: int | None
    what: str

    def __init__(
        self, message: str, path: str | None = None, offset: int | None = None, what: str | None = None
    ) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset
        self.what = message if what is None else what

    def __reduce__(self) -> tuple[type[ModelFileError], tuple[str, str | None, int | None, str]]:
        return type(self), (str(self), self.path, self.offset, self.what)


class SessionError(FastqError, ValueError):
    """A session file is malformed, truncated, or one of another model or version; the message names file and place."""


class UnsupportedModelError(FastqError):
    """A valid file that this version cannot run; the message names the architecture, key or tensor type."""


class TokenizerError(FastqError):
    """The vocabulary is inconsistent or cannot encode a text."""


class TemplateError(FastqError):
    """The chat template is missing, invalid, raised an exception or exceeded a limit."""


class GrammarError(FastqError, ValueError):
    """A schema, regular expression or grammar is invalid, not supported or too complex; the message names the place."""


class ContextOverflowError(FastqError):
    """A prompt does not fit the context; the message names both lengths in tokens."""


class Cancelled(FastqError):  # noqa: N818 - a request of the caller, not an error
    """A computation was stopped by ``cancel()``."""
