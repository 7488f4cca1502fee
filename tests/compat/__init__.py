"""Programs written for llama-cpp-python, and what they get of it."""
