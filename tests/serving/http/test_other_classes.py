"""The service of a network of findings, and of one of three classes, asked in this process."""

import asyncio
import base64

import cv2
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scipy.special import expit, softmax

from cxr_jax.bundle.record import Call
from cxr_jax.commands.serve import _described
from cxr_jax.errors import UserError
from cxr_jax.serving.http.app import app_of
from cxr_jax.serving.http.limits import Limits
from cxr_jax.serving.http.service import Network, Service
from cxr_jax.vocabulary import FINDINGS
from tests.serving.http.bundles import FILMS, film, write_other_bundle

NAMES = ("Effusion", "Mass", "Nodule")
CALLS = (Call("Effusion", 0.6, "youden", 0.9, 0.8, 200), Call("Mass", 0.5, "youden"), Call("Nodule", 0.2, "youden"))


class Client:
    """Asks a service without a socket."""

    def __init__(self, service):
        self.app = app_of(service, lambda _: None, on_start=lambda: None)

    def ask(self, method, path, status=200, **options):
        async def asking():
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, **options)

        response = asyncio.run(asking())
        assert response.status_code == status
        return response


@pytest.fixture
def asked(tmp_path):
    """Starts services of bundles in this process."""
    services = []

    def start(kind, calls=()):
        network = Network.of(write_other_bundle(tmp_path / "bundle", NAMES, kind, calls))
        services.append(Service(network, Limits(2**20, 8, 10.0, 10.0)))
        return Client(services[-1]), network

    yield start
    for service in services:
        service.close()


def answered(client, *levels, query=""):
    files = [("file", (f"{level}.png", film(level))) for level in levels]
    return client.ask("POST", f"/predict{query}", files=files).json()


def logits(level):
    return (level - 128) / 32 * (1 - np.arange(3))


def test_every_finding_has_a_probability_and_is_called_from_its_own_threshold(asked):
    client, network = asked(FINDINGS, CALLS)
    told = answered(client, 150, 128, 100)
    for entry, level, called in zip(told["files"], (150, 128, 100), ([0, 1, 2], [1, 2], [1, 2]), strict=True):
        assert entry["probabilities"] == pytest.approx(dict(zip(NAMES, expit(logits(level)), strict=True)), abs=1e-5)
        assert entry["thresholds"] == {"Effusion": 0.6, "Mass": 0.5, "Nodule": 0.2}
        assert entry["findings"] == [NAMES[place] for place in called]
        assert entry["label"] == "|".join(entry["findings"])
        assert (entry["probability"], entry["threshold"], entry["threshold_rule"]) == (None, None, "youden")
    assert told["rule"] is None and [rule["label"] for rule in told["rules"]] == list(NAMES)
    page = client.ask("GET", "/").text
    assert "Effusion is called from a probability of 0.6" in page and "sensitivity 90.0 %" in page
    assert "PNEUMONIA is called from a probability" not in page
    assert _described(network).endswith("Called: Effusion from 0.6, Mass from 0.5, Nodule from 0.2 (rule: youden).")


def test_an_image_counts_for_each_of_its_findings(asked):
    client, _ = asked(FINDINGS, CALLS)
    answered(client, 150, 100)
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(client.ask("GET", "/metrics").text)
        for sample in family.samples
    }
    assert values["cxr_images_total", "Effusion"] == 1 and values["cxr_images_total", "Nodule"] == 2
    assert values["cxr_probability_count", "Mass"] == 2 and values["cxr_drift_images",] == 2
    assert not any(name == "cxr_score_drift" for name, *_ in values)


def test_findings_whose_run_was_not_evaluated_are_called_from_one_half(asked):
    client, _ = asked(FINDINGS)
    (entry,) = answered(client, 150)["files"]
    assert set(entry["thresholds"].values()) == {0.5}
    assert "which nobody chose" in client.ask("GET", "/").text


def test_of_three_classes_the_likeliest_is_called(asked):
    client, network = asked("exclusive", CALLS)
    told = answered(client, 200, 90)
    for entry, level in zip(told["files"], (200, 90), strict=True):
        expected = softmax(logits(level))
        assert list(entry["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert entry["label"] == NAMES[int(np.argmax(expected))]
        assert entry["probability"] == pytest.approx(expected.max(), abs=1e-5)
        assert (entry["threshold"], entry["findings"], entry["thresholds"]) == (None, None, None)
    page = client.ask("GET", "/").text
    assert "An image is called the class of the highest probability, of Effusion, Mass, Nodule." in page
    assert "called from a probability" not in page
    assert _described(network).endswith("Called: the class of the highest probability.")


@pytest.mark.parametrize(("kind", "explained"), [(FINDINGS, "Effusion"), ("exclusive", "Effusion")])
def test_the_map_is_of_the_likeliest_that_is_called(kind, explained, asked, monkeypatch):
    from cxr_jax.serving import maps

    captions = []
    monkeypatch.setattr(maps, "with_caption", lambda picture, lines: captions.append(lines) or picture)
    client, _ = asked(kind, CALLS)
    (entry,) = answered(client, 220, query="?map=png")["files"]
    picture = base64.b64decode(entry["map"].removeprefix("data:image/png;base64,"))
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (32, 40, 3)
    (_, told, heat, films, _), *_ = captions
    assert films == FILMS
    assert heat.startswith(f"Grad-CAM of {explained} at ")
    assert f"(probability of {explained} 0.9" in told and ("threshold 0.6000" in told) == (kind == FINDINGS)


def test_a_map_where_there_can_be_none_is_refused_before_anything_is_predicted(asked):
    def no_maps():
        raise UserError("heat maps are of whole images")

    client, network = asked("exclusive", CALLS)
    object.__setattr__(network.loaded, "explainer", no_maps)
    files = [("file", ("film.png", film(220)))]
    refused = client.ask("POST", "/predict?map=png", status=422, files=files)
    assert "heat maps are of whole images: ask without map" in refused.text
    assert answered(client, 220)["files"][0]["error"] is None
