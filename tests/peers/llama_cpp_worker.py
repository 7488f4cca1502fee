"""Answers of llama.cpp, in the Python that has `llama_cpp`: `python -I llama_cpp_worker.py < jobs.json`.

A job is {"model": path, "tokens": [...], "context": n, "encoder": bool, "out": path of the .npy to write}. (-I, because
llama_cpp.py beside this file would be imported instead.)
"""

from __future__ import annotations

import json
import sys
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import Llama

Floats = npt.NDArray[np.float32]
F32 = 0
"""Of the cache; half precision is the default."""


def load(job: dict[str, Any], **options: Any) -> Llama:
    # The scaling parameters of this package have defaults that overrule the file; -1 is "as in the file".
    return Llama(job["model"], n_ctx=job["context"], n_batch=512, n_threads=1, n_threads_batch=1, flash_attn=False,
                 type_k=F32, type_v=F32, yarn_attn_factor=-1.0, yarn_beta_fast=-1.0, yarn_beta_slow=-1.0,
                 verbose=False, **options)  # fmt: skip


def logits(job: dict[str, Any]) -> Floats:
    model = load(job, logits_all=True)
    model.eval(job["tokens"])
    out = np.array(model.scores[: len(job["tokens"])], dtype=np.float32)
    model.close()
    return out


def rows(job: dict[str, Any], *, pooled: bool) -> Floats:
    """A row per token, or the one that the file's pooling makes of them."""
    pooling = llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED if pooled else llama_cpp.LLAMA_POOLING_TYPE_NONE
    model, tokens = load(job, embedding=True, pooling_type=pooling), job["tokens"]
    array = (llama_cpp.llama_token * len(tokens))(*tokens)
    if llama_cpp.llama_decode(model.ctx, llama_cpp.llama_batch_get_one(array, len(tokens))):
        raise RuntimeError(f"{job['model']} is not computed")
    found = llama_cpp.llama_get_embeddings_seq(model.ctx, 0) if pooled else llama_cpp.llama_get_embeddings(model.ctx)
    out: Floats = np.ctypeslib.as_array(found, (1 if pooled else len(tokens), model.n_embd())).copy()
    model.close()
    return out


for job in json.load(sys.stdin):
    answer = np.vstack([rows(job, pooled=False), rows(job, pooled=True)]) if job["encoder"] else logits(job)
    np.save(job["out"], answer)
