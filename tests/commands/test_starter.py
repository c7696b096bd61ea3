"""The network that comes with the package predicts where no run is named."""

import json
import re
import shutil

import pytest

import cxr_jax
from cxr_jax.bundle import starter
from cxr_jax.bundle.record import read_bundle
from cxr_jax.commands import predict, serve
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.vocabulary import DISCLAIMER


@pytest.fixture
def stands_in(bundle, monkeypatch):
    """A bundle of a tiny network in the place of the starter network."""
    monkeypatch.setattr(starter, "STARTER", bundle)
    return bundle


@pytest.fixture(scope="module")
def film(phantom_source):
    return str(min((phantom_source / "test").glob("*/*.jpeg")))


def test_a_film_alone_is_predicted_by_the_starter_network(stands_in, film, capsys):
    predict.main([film])
    told = capsys.readouterr().out
    assert "Loading the starter network" in told and DISCLAIMER in told
    reached = read_bundle(stands_in).test
    figures = ", ".join(figure.text() for figure in reached.figures)
    expected = (
        f"Model: the starter network of cxr_jax, mobilenetv2_tiny, trained on {read_bundle(stands_in).training_images} "
        "children's radiographs of one hospital (Kermany et al. 2018); "
        f"on the {reached.images} test images of the same data set: {figures}."
    )
    assert expected in told


def test_files_and_folders_are_taken_in_any_mixture(stands_in, film, phantom_source, tmp_path, capsys):
    shutil.copy(film, tmp_path / "one.jpeg")
    for arguments, count in (([str(tmp_path), film], 2), ([film, str(tmp_path)], 2), ([str(tmp_path)], 1)):
        capsys.readouterr()
        predict.main([*arguments, "--json"])
        entries = json.loads(capsys.readouterr().out)
        assert len(entries) == count and all("starter network" in entry["model"] for entry in entries)


def test_a_run_or_bundle_that_is_named_predicts(stands_in, bundle, film, tmp_path, capsys):
    other = shutil.copytree(bundle, tmp_path / "other")
    shutil.copy(film, other / "film.jpeg")
    predict.main([str(other), film])
    assert "starter" not in capsys.readouterr().out


def test_without_a_film_nothing_is_predicted(stands_in, evaluated_run, tmp_path):
    for run in (stands_in, evaluated_run, tmp_path):
        with pytest.raises(UserError, match=re.escape("cxr-jax predict [RUN] FILES...")) as told:
            predict.main([str(run)])
        assert told.value.code == EXIT_USAGE


def test_what_is_missing_is_called_what_it_was_meant_to_be(stands_in, film):
    with pytest.raises(UserError, match=r"^missing\.png does not exist"):
        predict.main(["missing.png"])
    with pytest.raises(UserError, match=r"^there is no run at runs/missing"):
        predict.main(["runs/missing", film])


def test_the_starter_network_is_loaded_from_python(stands_in, film):
    model = cxr_jax.load()
    assert "starter network" in model.name and model.predict(film)[0].file == film


def test_the_starter_network_is_served_where_no_bundle_is_named(stands_in, monkeypatch, capsys):
    from cxr_jax.serving.http import server

    monkeypatch.setattr(server, "run", lambda app, bound, limits: None)
    serve.main(["--port", "0"])
    told = capsys.readouterr().out
    assert "Model: the starter network of cxr_jax" in told and DISCLAIMER in told
