"""Lets the tests draw weights and images as the goldens do, and build the smallest networks."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("goldens", "training")]
