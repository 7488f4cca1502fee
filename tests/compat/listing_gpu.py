# ruff: noqa
# mypy: ignore-errors
# fmt: off
# A constructor as programs for GPUs have it, and the messages of llama.cpp silenced.
import ctypes
import llama_cpp
from llama_cpp import Llama, llama_log_set

def quiet(level, message, user_data):
    pass

llama_log_set(quiet, ctypes.c_void_p())
llm = Llama(
    model_path="./model.gguf",
    n_gpu_layers=-1,
    split_mode=llama_cpp.LLAMA_SPLIT_MODE_LAYER,
    main_gpu=0,
    tensor_split=[0.5, 0.5],
    flash_attn=True,
    offload_kqv=True,
    use_mlock=True,
    numa=True,
    type_k=llama_cpp.GGML_TYPE_Q8_0,
    type_v=llama_cpp.GGML_TYPE_Q8_0,
    n_ctx=1024,
    n_batch=512,
    seed=-1,
)
print(llm.create_chat_completion(messages=[{"role": "user", "content": "Hi"}], max_tokens=4)["choices"][0]["message"])
