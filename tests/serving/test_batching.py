import threading
from concurrent.futures import wait

import cv2
import numpy as np
import pytest

from cxr_jax.runs.description import NetworkDescription
from cxr_jax.serving import batching
from cxr_jax.serving.batching import BatchingPredictor, BusyError, StoppedError, Submission
from cxr_jax.serving.predict import Threshold
from cxr_jax.vocabulary import CLASS_NAMES

SIZE = 8
THRESHOLD = Threshold(0.5, "fixed")


class Brightness:
    """A network whose logit of PNEUMONIA is the mean grey level over 100; it can be held up and made to fail."""

    threshold, threshold_rule = 0.5, "fixed"
    sets = feature_limit = None
    descriptions = (NetworkDescription("brightness", CLASS_NAMES, SIZE, "squash", "area", (0.5,), (0.5,), "", "", 0),)

    def __init__(self):
        self.batches = []
        self.free = threading.Event()
        self.free.set()
        self.broken = None

    def logits(self, images):
        assert self.free.wait(120)
        if self.broken:
            raise self.broken
        self.batches.append(len(images))
        mean = images.mean(axis=(1, 2)) / 100
        return np.stack([np.zeros_like(mean), mean], axis=1)


def film(level):
    return cv2.imencode(".png", np.full((20, 16), level, np.uint8))[1].tobytes()


def probability(level):
    return 1 / (1 + np.exp(-level / 100))


@pytest.fixture
def network():
    return Brightness()


@pytest.fixture
def made(network):
    """Makes predictors of the network and stops them at the end."""
    predictors = []

    def make(**options):
        predictors.append(BatchingPredictor(network, THRESHOLD, **options))
        return predictors[-1]

    yield make
    network.free.set()
    for predictor in predictors:
        predictor.close()


def test_every_image_has_its_own_answer_whatever_arrives_together(made, network):
    predictor = made(capacity=1000)
    answers = {}

    def ask(first):
        for level in range(first, 250, 5):
            answers[level] = predictor.submit(film(level), f"{level}.png").result(120)

    askers = [threading.Thread(target=ask, args=(first,)) for first in range(5)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(answers) == list(range(250))
    for level, answer in answers.items():
        assert answer.file == f"{level}.png"
        assert answer.probability == pytest.approx(probability(level))
    assert sum(network.batches) == 250 + 1  # with the one that tries the network out


def test_what_waits_together_is_predicted_together(made, network, monkeypatch):
    decoded, read = threading.Semaphore(0), batching.read_radiograph
    monkeypatch.setattr(batching, "read_radiograph", lambda *given: (read(*given), decoded.release())[0])
    network.free.clear()
    predictor = made(batch_size=4, capacity=10)
    futures = predictor.submit_all([Submission(film(level), str(level)) for level in range(9)])
    assert all(decoded.acquire(timeout=120) for _ in futures)
    network.free.set()
    wait(futures, 120)
    assert network.batches[0] == 1 and max(network.batches) == 4 and sum(network.batches) == 10


def test_a_file_that_is_no_image_is_told_and_the_others_are_predicted(made):
    predictor = made()
    futures = predictor.submit_all(
        [Submission(film(1), "one"), Submission(b"nothing", "two"), Submission(film(3), "three")]
    )
    one, two, three = [future.result(120) for future in futures]
    assert two.error == "two is no JPEG, PNG or DICOM file by its content" and two.probability is None
    assert (one.error, three.error) == (None, None)
    assert three.probability == pytest.approx(probability(3))


def test_images_beyond_the_capacity_are_refused_as_a_whole(made, network):
    network.free.clear()
    predictor = made(capacity=3)
    two = [Submission(film(1), "a"), Submission(film(2), "b")]
    kept = predictor.submit_all(two)
    with pytest.raises(BusyError):
        predictor.submit_all(two)
    third = predictor.submit(film(3), "c")
    with pytest.raises(BusyError):
        predictor.submit(film(4), "d")
    network.free.set()
    assert [future.result(120).file for future in (*kept, third)] == ["a", "b", "c"]
    assert predictor.pending == 0
    assert predictor.submit(film(5), "e").result(120).file == "e"


def test_what_was_accepted_is_answered_before_it_stops(made, network):
    network.free.clear()
    predictor = made()
    futures = predictor.submit_all([Submission(film(level), str(level)) for level in range(20)])
    closing = threading.Thread(target=predictor.close)
    closing.start()
    with pytest.raises(StoppedError):
        while True:
            futures.append(predictor.submit(film(1), "late"))
            closing.join(0.02)
    network.free.set()
    closing.join(120)
    assert [future.result(0).file for future in futures] == [
        *map(str, range(20)),
        *["late"] * (len(futures) - 20),
    ]


def test_it_answers_only_once_the_network_did(made, network):
    network.free.clear()
    predictor = made()
    assert not predictor.answering
    network.free.set()
    predictor.submit(film(1), "a").result(120)
    assert predictor.answering


def test_a_network_that_fails_fails_its_batch_and_no_more(made, network):
    predictor = made()
    network.broken = RuntimeError("no memory")
    with pytest.raises(RuntimeError, match="no memory"):
        predictor.submit(film(1), "a").result(120)
    assert not predictor.answering and predictor.pending == 0
    network.broken = None
    assert predictor.submit(film(2), "b").result(120).probability == pytest.approx(probability(2))
    assert predictor.answering


def test_an_answer_that_is_no_number_is_no_answer(made, network, monkeypatch):
    predictor = made()
    monkeypatch.setattr(network, "logits", lambda images: np.full((len(images), 2), np.nan))
    with pytest.raises(FloatingPointError):
        predictor.submit(film(1), "a").result(120)


def test_what_nobody_waits_for_any_more_is_not_decoded(made, network, monkeypatch):
    begun, going_on = threading.Semaphore(0), threading.Event()
    read = batching.read_radiograph

    def slowly(*given):
        begun.release()
        assert going_on.wait(120)
        return read(*given)

    monkeypatch.setattr(batching, "read_radiograph", slowly)
    monkeypatch.setattr(batching, "available_cores", lambda: 1)
    predictor = made()
    first = predictor.submit(film(1), "a")
    assert begun.acquire(timeout=120)
    second, third = predictor.submit(film(2), "b"), predictor.submit(film(3), "c")
    assert second.cancel()
    going_on.set()
    assert (first.result(120).file, third.result(120).file) == ("a", "c")
    assert predictor.pending == 0
    assert sum(network.batches) == 3


def test_no_prediction_holds_its_radiograph(made):
    assert made().submit(film(7), "a").result(120).radiograph is None
