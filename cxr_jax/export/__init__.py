"""A run as files that work without JAX: ONNX, StableHLO, a model card, and a program that predicts."""
