"""An exported network: its folder read and checked, and the network run by onnxruntime; no JAX is needed."""
