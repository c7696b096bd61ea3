"""Speed and memory of the real steps, beside the machine's ceilings, stock convolutions and PyTorch.

The parent process plans, alternates and prints; every case runs in a child of its own (`worker`), so that allocator
settings, core affinity and peak memory are that case's alone.
"""
