"""Weights of timm's networks as files for ours: the only room, beside the benchmark's rivals, that imports torch."""
