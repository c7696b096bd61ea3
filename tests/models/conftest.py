"""Lets the tests draw weights and images as the goldens do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "goldens"))
