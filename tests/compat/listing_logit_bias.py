# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A word made likely.
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", verbose=False)
rome = llm.tokenize(b" Rome", add_bos=False)[0]
out = llm("The capital of France is", max_tokens=1, temperature=0, logit_bias={str(rome): 100.0})
print(out["choices"][0]["text"])
