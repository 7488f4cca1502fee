# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A chat in the terminal that keeps its history, streams the answers and ends with "exit".
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", n_ctx=1024, chat_format="chatml", verbose=False)
history = [{"role": "system", "content": "You are a helpful assistant. Answer in one sentence."}]

while True:
    text = input("You: ")
    if text.strip().lower() in ("exit", "quit"):
        break
    history.append({"role": "user", "content": text})
    print("Bot: ", end="")
    answer = ""
    for chunk in llm.create_chat_completion(messages=history, max_tokens=24, temperature=0.7, stream=True):
        delta = chunk["choices"][0]["delta"]
        if "role" in delta:
            continue
        elif "content" in delta:
            print(delta["content"], end="", flush=True)
            answer += delta["content"]
    print()
    history.append({"role": "assistant", "content": answer})
