# ruff: noqa
# mypy: ignore-errors
# fmt: off
# What tutorials do first: print the text while it is written.
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", n_ctx=2048, n_threads=2, n_gpu_layers=0, verbose=False)

stream = llm.create_completion(
    "Q: What is the capital of France?\nA:", max_tokens=24, temperature=0.0, stop=["Q:", "\n"], stream=True
)
for output in stream:
    print(output["choices"][0]["text"], end="", flush=True)
print()
