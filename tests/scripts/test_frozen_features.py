"""The scripts on features of a frozen network, on phantoms and a tiny network."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare
from cxr_jax.errors import EXIT_USAGE
from cxr_jax.models.original_names import expected_tensors
from cxr_jax.models.registry import model_shapes

SCRIPTS = Path(__file__).parents[2] / "scripts"
MODEL = "mobilenetv2_tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Prepared phantoms, and weights of random numbers under timm's names."""
    folder = tmp_path_factory.mktemp("frozen")
    write_phantoms(folder / "source", train=60, val=4, test=24, seed=0, image_size_range=(64, 96))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
        prepare(folder / "source", name="phantoms")
    random = np.random.default_rng(0)
    _, params, batch_stats = model_shapes(MODEL, classes=1000)
    shapes = expected_tensors(params | batch_stats)
    arrays = {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(
        {name: abs(value) if name.endswith("var") else value for name, value in arrays.items()},
        folder / "w.safetensors",
    )
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Runs a script as from a shell, but in this process; returns its exit code, standard output and standard error."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
    # where Python looks first when it runs a script
    monkeypatch.syspath_prepend(SCRIPTS)

    def run(script: str, *arguments: str) -> tuple[int, str, str]:
        given = ["--dataset", "phantoms", "--model", MODEL, "--weights", str(folder / "w.safetensors")]
        monkeypatch.setattr(sys, "argv", [script, *given, "--image-size", "32", *arguments])
        with (
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            pytest.raises(SystemExit) as end,
        ):
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


@pytest.mark.slow
def test_the_check_prints_its_auc_and_fails_below_the_minimum(run):
    code, printed, _ = run("check_frozen_features.py", "--minimum-auc", "0")
    assert code == 0
    assert "on 24 test radiographs, fitted to 60" in printed
    assert run("check_frozen_features.py", "--minimum-auc", "1.1")[:2] == (1, printed)


@pytest.mark.slow
def test_every_cut_gets_a_row_and_every_split_its_sharpness(run, folder):
    code, printed, _ = run("compare_validation_cuts.py", "--out", str(folder / "cuts"))
    assert code == 0
    cuts, sharpness = ((folder / "cuts" / f"{name}.csv").read_text() for name in ("cuts", "sharpness"))
    assert cuts + sharpness == printed
    rows = [line.split(",") for line in cuts.splitlines()]
    assert [row[:2] for row in rows[1:]] == [
        *(["grouped", seed] for seed in "012"),
        ["numbered", "0"],
        *(["least_sharp", seed] for seed in "012"),
    ]
    for row in rows[1:]:
        assert all(0 <= float(value) <= 1 for value in row[4:]) and len(row) == 8
    assert [line.split(",")[0] for line in sharpness.splitlines()[1:]] == ["train NORMAL", "train PNEUMONIA", "test"]
    # the cut with the least sharp normals is another one than that by chance
    assert rows[1][4:] != rows[5][4:]


def test_missing_weights_are_told_in_one_sentence(run):
    code, _, errors = run("compare_validation_cuts.py", "--weights", "nowhere.safetensors")
    assert code == EXIT_USAGE
    assert errors.startswith("compare_validation_cuts.py: there is no weights file nowhere.safetensors")
    assert "Traceback" not in errors and errors.count("\n") == 1
