"""Rules of localisation on boxes by hand, and that boxes of chance come from other patients alone."""

import dataclasses

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.localisation import (
    ALL,
    CENTRED,
    MEAN,
    Answer,
    BoxedMap,
    Localisation,
    chance_answers,
    judge_boxes,
    read_localisation,
    write_localisation,
)
from cxr_jax.images.boxes import Box


def boxed(number, drawn, answer, *, finding="Mass", group=None, size=(100, 200)):
    return BoxedMap(f"{number}.png", finding, group or f"patient {number}", *size, tuple(drawn), answer)


TRUTH = Box(10, 20, 40, 40)
HALF, ELSEWHERE, AROUND = Box(10, 20, 40, 20), Box(60, 150, 10, 10), Box(0, 0, 80, 80)


def test_boxes_are_found_above_the_thresholds_and_the_others_are_false():
    maps = [
        boxed(1, [TRUTH], Answer((HALF, ELSEWHERE), (20.0, 30.0))),
        boxed(2, [TRUTH], Answer((AROUND,), (79.0, 79.0))),
        boxed(3, [TRUTH, ELSEWHERE], Answer((), None)),
    ]
    (part,) = judge_boxes(maps)
    assert (part.name, part.maps, part.images, part.boxes, part.groups, part.blank) == ("Mass", 3, 3, 4, 3, 1)
    # HALF lies in TRUTH and is half of it; TRUTH is a quarter of AROUND
    found = {score.limit: score.network for score in part.scores if score.kind == "IoBB"}
    assert {limit: rate.found for limit, rate in found.items()} == {0.1: 2, 0.25: 1, 0.5: 1, 0.75: 1, 0.9: 1}
    assert found[0.1].of == 4
    assert found[0.1].false_positives == pytest.approx(1 / 3)
    assert found[0.25].false_positives == pytest.approx(2 / 3)
    unions = {score.limit: score.network.found for score in part.scores if score.kind == "IoU"}
    assert unions == {0.1: 2, 0.2: 2, 0.3: 1, 0.4: 1, 0.5: 0, 0.6: 0, 0.7: 0}
    pointing = part.score("pointing").network
    assert (pointing.found, pointing.of, pointing.false_positives) == (1, 3, None)
    low, high = pointing.share.interval.low, pointing.share.interval.high
    assert 0 <= low < 1 / 3 < high <= 1
    covered = [1600 / 20000, 1600 / 20000, 1700 / 20000]
    assert part.covered == pytest.approx(np.mean(covered))


def test_a_map_that_says_where_it_is_finds_everything():
    maps = [boxed(n, [TRUTH.scaled(1, 1 + n / 9)], Answer((TRUTH.scaled(1, 1 + n / 9),), (30, 40))) for n in range(4)]
    (part,) = judge_boxes(maps)
    assert all(score.network.found == score.network.of == 4 for score in part.scores)
    assert all(score.network.false_positives in (0, None) for score in part.scores)


def test_the_boxes_of_chance_are_the_same_whatever_was_drawn_in_the_own_patient():
    random = np.random.default_rng(0)
    nothing = Answer((), None)
    maps = [boxed(n, [Box(*random.uniform(5, 50, 4))], nothing, group=f"patient {n // 2}") for n in range(8)]
    before = chance_answers(maps)
    moved = [dataclasses.replace(entry, drawn=(Box(1, 1, 90, 3),)) if n < 2 else entry for n, entry in enumerate(maps)]
    after = chance_answers(moved)
    for name in (CENTRED, MEAN):
        assert before[name][:2] == after[name][:2]
        assert all(one != other for one, other in zip(before[name][2:], after[name][2:], strict=True))
    others = [entry.drawn[0] for entry in maps[2:]]
    (mean,) = before[MEAN][0].boxes
    assert mean.left == pytest.approx(np.mean([box.left for box in others]))
    assert mean.height == pytest.approx(np.mean([box.height for box in others]))
    (middle,) = before[CENTRED][0].boxes
    assert middle.centre == pytest.approx((50, 100))
    assert (middle.width, middle.height) == pytest.approx((mean.width, mean.height))


def test_the_boxes_of_chance_are_of_the_same_finding_and_in_shares_of_the_image():
    nothing = Answer((), None)
    maps = [
        boxed(1, [Box(10, 20, 30, 40)], nothing, size=(100, 200)),
        boxed(2, [Box(0, 0, 50, 50)], nothing, size=(500, 500)),
        boxed(3, [Box(5, 5, 5, 5)], nothing, size=(50, 50), finding="Nodule"),
    ]
    first, second, third = (answer.boxes[0] for answer in chance_answers(maps)[MEAN])
    assert first == Box(0, 0, 10, 20)
    assert second == Box(50, 50, 150, 100)
    # no other patient has a nodule: the boxes of all findings stand in
    assert dataclasses.astuple(third) == pytest.approx((2.5, 2.5, 10, 7.5))


def test_one_patient_leaves_nothing_to_compare_with():
    maps = [boxed(n, [TRUTH], Answer((TRUTH,), (30, 40)), group="one") for n in range(3)]
    (part,) = judge_boxes(maps)
    assert all(score.chance == {} and score.more == {} for score in part.scores)


def test_findings_are_told_apart_and_together_and_the_difference_is_paired():
    perfect = Answer((TRUTH,), TRUTH.centre)
    maps = [boxed(n, [TRUTH], perfect, finding=("Mass", "Nodule")[n % 2]) for n in range(6)]
    maps[0] = dataclasses.replace(maps[0], drawn=(ELSEWHERE,))
    parts = judge_boxes(maps)
    assert [part.name for part in parts] == ["Mass", "Nodule", ALL]
    score = parts[-1].score("pointing")
    assert (score.network.found, score.network.of) == (5, 6)
    # what is mean of the others is TRUTH itself, but for the one mass elsewhere
    assert score.chance[MEAN].of == 6
    expected = (score.network.found - score.chance[MEAN].found) / 6
    assert score.more[MEAN].value == pytest.approx(expected)


def test_a_record_is_read_as_it_was_written(tmp_path):
    maps = [boxed(n, [TRUTH], Answer((HALF, ELSEWHERE), (20.0, 30.0))) for n in range(4)]
    how = {"dataset": "films", "images_of": "test", "phantom": True, "architecture": "tiny", "step": 3}
    told = {"checkpoint_sha256": "00", "stage": "last", "levels": (60, 180), "left_out": {"not prepared": 2}}
    record = Localisation(**how, **told, files=("0.png",), parts=judge_boxes(maps), date="today")
    write_localisation(tmp_path / "localisation.json", record)
    assert read_localisation(tmp_path / "localisation.json") == record
    (tmp_path / "localisation.json").write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match=r"is damaged .*: run cxr-jax explain with --boxes again"):
        read_localisation(tmp_path / "localisation.json")
