# ruff: noqa
# mypy: ignore-errors
# fmt: off
# Facts out of a text, as JSON that a schema describes.
import json
from llama_cpp import Llama
from llama_cpp.llama_grammar import LlamaGrammar

schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer"},
        "job": {"enum": ["engineer", "teacher", "artist"]},
    },
    "required": ["name", "age", "job"],
}
llm = Llama(model_path="./model.gguf", n_ctx=1024, verbose=False)
answer = llm.create_completion(
    "Text: Maria is a 31 year old engineer from Lisbon.\nJSON: ",
    grammar=LlamaGrammar.from_json_schema(json.dumps(schema)),
    max_tokens=128,
    temperature=0,
)
person = json.loads(answer["choices"][0]["text"])
print(person)
