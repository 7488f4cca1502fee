# ruff: noqa
# mypy: ignore-errors
# fmt: off
# How likely the words of an answer are.
import math
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", logits_all=True, verbose=False)
out = llm("The capital of France is", max_tokens=1, temperature=0, logprobs=5)
top = out["choices"][0]["logprobs"]["top_logprobs"][0]
for word, logprob in sorted(top.items(), key=lambda item: -item[1]):
    print(repr(word), round(math.exp(logprob), 3))
