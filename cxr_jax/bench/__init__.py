"""Speed and memory of the real steps, beside the machine's ceilings, stock convolutions and PyTorch.

The parent process plans, alternates and prints. Every case runs in a child process of its own (`worker`). Allocator
settings, core affinity and peak memory are then those of one case.
"""
