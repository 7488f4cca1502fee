"""Interfaces of other libraries on top of :class:`fastq.Model`, for programs that are to run without being rewritten.

:mod:`fastq.compat.llama_cpp` stands in for ``llama_cpp`` (llama-cpp-python).
"""
