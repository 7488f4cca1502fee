# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A cache for prompts.
from llama_cpp import Llama, LlamaCache, LlamaDiskCache, LlamaRAMCache

llm = Llama(model_path="./model.gguf", verbose=False)
llm.set_cache(LlamaCache(capacity_bytes=1 << 30))
llm("The capital of France is", max_tokens=1)
llm.set_cache(LlamaRAMCache())
llm.set_cache(LlamaDiskCache())
print(llm("The capital of France is", max_tokens=1, temperature=0)["choices"][0]["text"])
