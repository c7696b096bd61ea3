import threading
import time

import pytest

from cxr_jax.data.pool import map_in_order


def test_results_keep_the_order_of_the_items():
    def slow_first(item):
        time.sleep(0.01 if item == 0 else 0)
        return item * item

    assert list(map_in_order(slow_first, range(50))) == [item * item for item in range(50)]


def test_items_are_taken_only_a_few_ahead(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    taken = 0

    def items():
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    results = map_in_order(str, items())
    for _ in range(10):
        next(results)
    assert taken <= 10 + 8
    results.close()


def test_an_error_reaches_the_caller_and_ends_the_threads():
    before = set(threading.enumerate())

    def fail(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(map_in_order(fail, range(100)))
    # threads of other tests may end meanwhile
    assert set(threading.enumerate()) <= before
