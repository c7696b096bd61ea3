"""The way out: a trained network as files that run without JAX."""
