"""`python -m cxr_jax` is `cxr-jax`."""

import sys

from cxr_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
