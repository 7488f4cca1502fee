# ruff: noqa
# mypy: ignore-errors
# fmt: off
# The perplexity of a text, of the logits.
import numpy as np
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", n_ctx=256, logits_all=True, verbose=False)
tokens = llm.tokenize(b"The quick brown fox jumps over the lazy dog.")
llm.reset()
llm.eval(tokens)
logprobs = Llama.logits_to_logprobs(llm.scores[: llm.n_tokens - 1])
perplexity = float(np.exp(-np.mean(logprobs[np.arange(len(tokens) - 1), tokens[1:]])))
print(perplexity)
