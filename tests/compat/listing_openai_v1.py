# ruff: noqa
# mypy: ignore-errors
# fmt: off
# Answers as the classes of the openai package.
from llama_cpp import Llama

llm = Llama(model_path="./model.gguf", verbose=False)
messages = [{"role": "user", "content": "What is the capital of France?"}]
answer = llm.create_chat_completion_openai_v1(messages=messages, max_tokens=8)
print(answer.choices[0].message.content)
for chunk in llm.create_chat_completion_openai_v1(messages=messages, max_tokens=8, stream=True):
    print(chunk.choices[0].delta.content or "", end="")
