"""How much is done, counted so that it is the same on a busy machine."""

import sys
from collections.abc import Callable


def counted_calls(run: Callable[[], object]) -> int:
    """Returns how many functions of Python and of C `run` calls, and how often it goes on with a generator."""
    calls = 0

    def count(frame: object, event: str, called: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(before)
    return calls
