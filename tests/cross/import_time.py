"""Prints how long `import fastq` takes: the median of 21 processes, less that of processes that import nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def median(code: str) -> float:
    """Milliseconds of a process that runs `code`."""
    times = []
    for _ in range(21):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


if __name__ == "__main__":
    print(f"import fastq takes {median('import fastq') - median('pass'):.1f} ms")
