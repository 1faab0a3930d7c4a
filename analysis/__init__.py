"""Analysis: from a finished run to joules per token. kernels < clocks < phases, tokens < energy, uncertainty < report.

Kernels are numpy in, numpy out; raw streams are read and never rewritten; what is derived can be derived again.
"""
