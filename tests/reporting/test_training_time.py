from cxr_jax.reporting.training_time import images_per_second, wall_seconds


def train(phase, speed, seconds=1.0):
    return {"kind": "train", "phase": phase, "images_per_second": speed, "seconds": seconds}


def test_wall_time_is_the_last_second_that_was_logged():
    lines = [train("all", 5.0, seconds=3.0), {"kind": "validation", "seconds": 41.0}, {"kind": "end"}]
    assert wall_seconds(lines) == 41
    assert wall_seconds([]) == 0


def test_the_speed_is_the_median_of_one_phase():
    # the first step of a phase waits for nothing that the others wait for, or for much more
    assert images_per_second([train("all", speed) for speed in (5.0, 40.0, 41.0)]) == 40


def test_features_computed_once_do_not_make_a_network_fast():
    head, deeper = [train("head", 40_000.0)] * 9, [train("deeper layers", speed) for speed in (90.0, 70.0, 80.0)]
    assert images_per_second(head + deeper) == 80


def test_without_a_speed_there_is_none():
    assert images_per_second([]) is None
    assert images_per_second([{"kind": "train", "phase": "all"}, {"kind": "validation"}]) is None
