"""Messages about arguments that have no effect: once each per process, through ``logging``."""

from __future__ import annotations

import logging

_told: set[str] = set()


def once(subject: str, message: str, level: int = logging.INFO) -> None:
    """Log a message unless there was one about the subject before."""
    if subject not in _told:
        _told.add(subject)
        log = logging.getLogger("fastq")
        # Without a handler, logging itself would print a warning.
        if log.hasHandlers():
            log.log(level, "llama_cpp: %s", message)
