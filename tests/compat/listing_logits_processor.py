# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A word that never comes, and a text that does not end early.
import numpy as np
from llama_cpp import Llama, LogitsProcessorList, MinTokensLogitsProcessor

llm = Llama(model_path="./model.gguf", verbose=False)
banned = llm.tokenize(b" Paris", add_bos=False)[0]

def never(input_ids, scores):
    scores[banned] = -np.inf
    return scores

processors = LogitsProcessorList([never, MinTokensLogitsProcessor(4, llm.token_eos())])
out = llm("The capital of France is", max_tokens=12, temperature=0, logits_processor=processors)
print(out["choices"][0]["text"])
