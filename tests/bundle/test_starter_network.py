"""The network that travels with the package is what its published record says, and holds no radiograph."""

import json
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.bundle.record import read_bundle
from cxr_jax.bundle.runtime import load_bundle
from cxr_jax.bundle.starter import STARTER, starter_name
from cxr_jax.data.decode import decode_square
from cxr_jax.runs.predictions import probability_of, read_predictions
from cxr_jax.vocabulary import DISCLAIMER

RECORD = Path(__file__).parents[2] / "results/best_study/a/fold0/seed0"


@pytest.fixture(scope="module")
def starter():
    return read_bundle(STARTER)


def test_it_is_small_and_whole(starter):
    """Reading it has held every file to its hash."""
    files = {path.name for path in STARTER.iterdir() if path.is_file()}
    assert files == {"model.onnx", "bundle.json", "MODEL_CARD.md", "predict.py", "LICENCES.md"}
    assert sum(path.stat().st_size for path in STARTER.iterdir() if path.is_file()) < 5e6
    assert starter.weights == "float16" and starter.name == "starter"


def test_it_is_the_published_run(starter):
    (look,) = [json.loads(line) for line in (RECORD / "ledger.jsonl").read_text().splitlines()]
    assert starter.checkpoint_sha256 == look["checkpoint_sha256"]
    assert starter.calls[0].threshold == json.loads((RECORD / "operating_point.json").read_text())["threshold"]
    metrics = json.loads((RECORD / "evaluation.json").read_text())["test"]["metrics"]
    by_title = {metric["title"]: metric for metric in metrics.values()}
    assert [figure.title for figure in starter.test.figures][-1] == "ROC-AUC"
    for figure in starter.test.figures:
        metric = by_title[figure.title]
        interval = metric["intervals"][0]
        assert (figure.value, figure.low, figure.high) == (metric["value"], interval["low"], interval["high"])


def test_half_precision_changed_no_call_on_validation(starter):
    """As was measured on every validation image, in two runtimes, when it was exported."""
    assert starter.half.images == starter.calls[0].images == 1047
    assert starter.half.other_calls == 0
    assert max(check.largest_difference for check in starter.runtimes) < 0.005


def test_it_says_what_it_is(starter):
    name = starter_name(starter)
    assert "starter network of cxr_jax, mobilenetv2_100, trained on 4,185 children's radiographs" in name
    assert "ROC-AUC 0.990 (0.981 to 0.995)" in name and "624 test images" in name
    licences = (STARTER / "LICENCES.md").read_text()
    assert "Apache License 2.0" in licences and "CC BY 4.0" in licences and "Kermany" in licences
    card = (STARTER / "MODEL_CARD.md").read_text()
    assert starter.films in card
    trained_on = "Trained on 4,185 images of the data set `chest_xray`, which has 5,216 images for training"
    assert DISCLAIMER in card and trained_on in card


def test_no_picture_is_in_it():
    text = "".join((STARTER / name).read_text() for name in ("bundle.json", "MODEL_CARD.md"))
    assert "mean_picture" not in text and "likeness" not in text and ".jpeg" not in text


def test_it_predicts_what_the_whole_network_predicted_on_validation(real_radiographs):
    table = read_predictions(RECORD / "predictions" / "val.csv")
    rows = np.linspace(0, len(table) - 1, 40).astype(int)
    squares = []
    for row in rows:
        name = Path(table.file[row]).name
        (path,) = (path for split in ("train", "val") for path in (real_radiographs / split).glob(f"*/{name}"))
        squares.append(decode_square(path.read_bytes(), 224, name=name))
    found = probability_of(load_bundle(STARTER).logits(np.stack(squares)))
    np.testing.assert_allclose(found, table.probability[rows], rtol=0, atol=0.006)
    assert np.ptp(found) > 0.9
