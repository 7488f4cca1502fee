# ruff: noqa
# mypy: ignore-errors
# fmt: off
# README of llama-cpp-python 0.3.36 (MIT), "Pulling models from Hugging Face Hub"; with the import that it leaves out.
from llama_cpp import Llama

llm = Llama.from_pretrained(
    repo_id="lmstudio-community/Qwen3.5-0.8B-GGUF",
    filename="*Q8_0.gguf",
    verbose=False
)
