"""A program that runs a command of `cxr-jax` where no jax can be imported."""

WITHOUT_JAX = """
import sys
sys.modules.update(dict.fromkeys(["jax", "jaxlib", "flax", "optax", "orbax"]))
from cxr_jax.cli import main
sys.exit(main())
"""
