# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A tool that the model may call, and its result.
import json
from llama_cpp import Llama

def get_weather(city):
    return {"city": city, "celsius": 21}

tools = [{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
    },
}]
messages = [{"role": "user", "content": "What is the weather in Rome?"}]
llm = Llama(model_path="./model.gguf", n_ctx=1024, chat_format="chatml-function-calling", verbose=False)
choice = {"type": "function", "function": {"name": "get_weather"}}
response = llm.create_chat_completion(messages=messages, tools=tools, tool_choice=choice, max_tokens=48, temperature=0)
message = response["choices"][0]["message"]
messages.append(message)
for call in message["tool_calls"]:
    arguments = json.loads(call["function"]["arguments"])
    result = get_weather(**arguments)
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)})
print(arguments)
final = llm.create_chat_completion(messages=messages, max_tokens=24, temperature=0)
print(final["choices"][0]["message"]["content"])
