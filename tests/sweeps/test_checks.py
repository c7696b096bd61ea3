"""What looks at a sweep's variants before they are trained leaves the accelerator to those who come after it."""

import os
import subprocess
import sys

PROGRAM = """
import jax
import jax.numpy as jnp
from cxr_jax.sweeps import checks
from cxr_jax.terminal import Terminal

class Looking:
    variant = "looking"

    @property
    def config(self):
        print(jax.config.jax_platforms, jnp.ones(3).sum())
        raise SystemExit

before = jax.config.jax_platforms
try:
    checks.require_trainable([Looking()], Terminal())
except SystemExit:
    print(jax.config.jax_platforms == before, jnp.ones(3).sum())
"""


def test_the_platform_is_the_cpu_while_variants_are_looked_at_and_as_before_after_that():
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.stdout == "cpu 3.0\nTrue 3.0\n", done.stderr
