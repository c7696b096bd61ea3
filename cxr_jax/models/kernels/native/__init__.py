"""Kernels in C++ for bfloat16 on a CPU, compiled on first use where there is a compiler; nothing needs them."""
