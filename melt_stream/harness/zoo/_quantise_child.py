"""Quantises with the llama.cpp of the wheel cyllama: ``python -m ..._quantise_child FROM TO FTYPE THREADS REQUANTISE``.

A process of its own: where the C++ code aborts, that is an exit status, and its memory is told apart from ours.
"""

from __future__ import annotations

import sys


def main(source: str, target: str, ftype: int, threads: int, requantise: bool) -> None:
    """Write ``target``; what goes wrong ends up on stderr, with exit status 1."""
    from cyllama.llama import llama_cpp

    params = llama_cpp.LlamaModelQuantizeParams()
    params.ftype, params.nthread, params.allow_requantize = ftype, threads, requantise
    llama_cpp.model_quantize(source, target, params)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1")
