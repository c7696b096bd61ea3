"""An exported network in onnxruntime-web, as the page starts it in Chromium, held to the run that it came from."""

import os
from pathlib import Path

import numpy as np
import pytest
from page_reader import given, opened, predicted, press, table_of

from cxr_jax.commands import evaluate, export, page, train
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.data.split_loading import load_split
from cxr_jax.export.check import BATCH_SIZES
from cxr_jax.export.write import TOLERANCE
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions
from tests.browser import served
from tests.page.conftest import NOT_VENDORED, SOURCE, VENDORED

pytestmark = pytest.mark.skipif(not VENDORED, reason=NOT_VENDORED)

PREPARED = os.environ.get("CXR_PREPARED_DIR")
"""Of whoever runs the tests, before these have a folder of their own."""

IMAGES_AT_ONCE = 7
"""That the browser is asked for together, so that it is never silent for long."""

START = """
    const { openNetwork } = await import("/app/network.js");
    const bytes = async (address) => new Uint8Array(await (await fetch(address)).arrayBuffer());
    window.onnxruntime = await import("/vendor/onnxruntime.js");
    window.network = await openNetwork(await bytes("/model.onnx"), await bytes("/vendor/onnxruntime.wasm"));
    window.images = await bytes("/images");
    window.probabilities = async (start, stop, size, side) => {
        const found = [];
        for (let place = start; place < stop; place += size) {
            const count = Math.min(size, stop - place);
            const squares = images.subarray(place * side * side, (place + count) * side * side);
            const given = new onnxruntime.Tensor("uint8", squares, [count, side, side]);
            found.push(...(await network.run({ images: given })).probability.data);
        }
        return found;
    };
    return images.length;
"""


def probabilities_in(browser, folder, bundle, images):
    """Probabilities of PNEUMONIA [N] by size of batch, of images uint8 [N, S, S], by onnxruntime-web."""
    for name, source in (("app", SOURCE / "static" / "app"), ("vendor", SOURCE / "vendor")):
        (folder / name).symlink_to(source)
    (folder / "model.onnx").symlink_to(bundle / "model.onnx")
    (folder / "index.html").write_text("<!doctype html><title>network</title>")
    (folder / "images").write_bytes(images.tobytes())
    count, side, _ = images.shape
    found = {}
    with served(folder) as address:
        browser.open(address, 800)
        assert browser.run_async(START) == images.size
        for size in BATCH_SIZES:
            parts = []
            for start in range(0, count, IMAGES_AT_ONCE):
                stop = min(count, start + IMAGES_AT_ONCE)
                parts += browser.run_async(f"return await probabilities({start}, {stop}, {size}, {side})")
            found[size] = np.reshape(parts, (count, 2))[:, 1]
    return found


def largest_differences(browser, folder, bundle, run):
    """By how much a probability differs from the run's own on its validation images, by size of batch."""
    config = load_config(run.config)
    validation = load_split(open_data_of_run(run), config.data, "val")
    stated = read_predictions(run.predictions_of("val"))
    expected = dict(zip(stated.file, stated.probability, strict=True))
    assert set(validation.files) == set(expected)
    found = probabilities_in(browser, folder, bundle, np.asarray(validation.images))
    run_says = np.array([expected[file] for file in validation.files])
    assert np.ptp(run_says) > 0.01
    return {size: float(np.abs(says - run_says).max()) for size, says in found.items()}


def test_validation_images_get_the_probabilities_of_the_run(
    browser, bundle, evaluated_run, prepared_phantoms, tmp_path
):
    differences = largest_differences(browser, tmp_path, bundle, RunFolder(evaluated_run))
    assert max(differences.values()) < TOLERANCE, differences


@pytest.mark.slow
def test_a_network_behind_a_denoiser_has_a_page_like_any(
    browser, config_file, prepared_phantoms, phantom_source, tmp_path, monkeypatch, capsys
):
    run, bundle, out = (tmp_path / name for name in ("run", "bundle", "page"))
    train.main([str(config_file), "--out", str(run), "--model.denoiser", "4"])
    evaluate.main([str(run)])
    export.main([str(run), str(bundle)])
    (tmp_path / "network").mkdir()
    differences = largest_differences(browser, tmp_path / "network", bundle, RunFolder(run))
    assert max(differences.values()) < TOLERANCE, differences
    page.main([str(bundle), str(out)])
    films = sorted((phantom_source / "test" / "PNEUMONIA").glob("*.jpeg"))[:3]
    expected = predicted(bundle, films, monkeypatch, capsys)
    with served(out) as address:
        opened(browser, address)
        given(browser, films)
        rows = table_of(browser, tmp_path / "down")
        press(browser, "#explained")
        caption = browser.run("return document.getElementById('caption').textContent")
    for row, entry in zip(rows, expected, strict=True):
        assert float(row["probability"]) == pytest.approx(entry["probability"], abs=0.005)
        assert row["label"] == entry["label"]
    assert "speaks for" in caption


@pytest.mark.slow
def test_real_validation_images_get_the_probabilities_of_the_run(browser, tmp_path, monkeypatch):
    """With the bundle that CXR_PAGE_BUNDLE names, and the run that it came from, CXR_PAGE_RUN."""
    bundle, run = (os.environ.get(name) for name in ("CXR_PAGE_BUNDLE", "CXR_PAGE_RUN"))
    if not bundle or not run or not PREPARED:
        pytest.skip("CXR_PAGE_BUNDLE, CXR_PAGE_RUN or CXR_PREPARED_DIR is not set")
    monkeypatch.setenv("CXR_PREPARED_DIR", PREPARED)
    differences = largest_differences(browser, tmp_path, Path(bundle), RunFolder(Path(run)))
    print(f"largest differences by size of batch: {differences}")
    assert max(differences.values()) < TOLERANCE, differences
