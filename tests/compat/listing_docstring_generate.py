# ruff: noqa
# mypy: ignore-errors
# fmt: off
# The examples in the docstrings of Llama and Llama.generate of llama-cpp-python 0.3.36 (MIT); the second never ends by itself,
# so that it is left after some tokens here.
import llama_cpp
model = llama_cpp.Llama(
    model_path="path/to/model.gguf",
)
print(model("The quick brown fox jumps ", stop=["."])["choices"][0]["text"])

llama = llama_cpp.Llama("models/ggml-7b.gguf")
tokens = llama.tokenize(b"Hello, world!")
for token in llama.generate(tokens, top_k=40, top_p=0.95, temp=1.0, repeat_penalty=1.0):
    print(llama.detokenize([token]))
    if llama.n_tokens > 12:
        break
