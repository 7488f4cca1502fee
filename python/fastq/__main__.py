"""The ``fastq`` command; ``python -m fastq`` is the same."""

from __future__ import annotations

import os
import sys

from fastq import _fastq


def main() -> int:
    """Run the command line of ``sys.argv`` and return its exit code: 0 done, 1 error, 2 usage, 130 interrupted."""
    # The default model is fetched with pip, and this interpreter is known to exist.
    os.environ.setdefault("FASTQ_PYTHON", sys.executable)
    return _fastq.main(["fastq", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
