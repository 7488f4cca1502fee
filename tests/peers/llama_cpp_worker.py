"""Logits of llama.cpp, in the Python that has `llama_cpp`: `python -I llama_cpp_worker.py < jobs.json`.

A job is {"model": path, "tokens": [...], "context": n, "out": path of the .npy to write}. (-I, because llama_cpp.py
beside this file would be imported instead.)
"""

from __future__ import annotations

import json
import sys

import numpy as np
from llama_cpp import Llama

F32 = 0
"""Of the cache; half precision is the default."""

for job in json.load(sys.stdin):
    # The scaling parameters of this package have defaults that overrule the file; -1 is "as in the file".
    model = Llama(job["model"], n_ctx=job["context"], n_batch=512, n_threads=1, n_threads_batch=1, logits_all=True,
                  flash_attn=False, type_k=F32, type_v=F32, yarn_attn_factor=-1.0, yarn_beta_fast=-1.0,
                  yarn_beta_slow=-1.0, verbose=False)  # fmt: skip
    model.eval(job["tokens"])
    np.save(job["out"], np.array(model.scores[: len(job["tokens"])], dtype=np.float32))
    model.close()
