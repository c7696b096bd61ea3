"""A folder of static files by which any browser predicts with an exported network; no JAX is needed to write it."""
