import re

import jax
import pytest

from cxr_jax.commands import models
from cxr_jax.errors import UserError
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.models.size import measure

SHOWN = ("mobilenetv2_100", "tf_efficientnetv2_s", "squeezenet_tiny", "mobilenetv2_tiny")


@pytest.mark.parametrize(
    "names", [SHOWN, pytest.param(tuple(ARCHITECTURES), marks=pytest.mark.slow)], ids=["four", "all"]
)
def test_every_architecture_is_a_row(names, monkeypatch, capsys):
    monkeypatch.setattr("cxr_jax.models.registry.ARCHITECTURES", {name: ARCHITECTURES[name] for name in names})
    models.main([])
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.strip("│┃ ").split("│")]
        if cells[0] in ARCHITECTURES:
            rows[cells[0]] = cells[1:]
    assert list(rows) == list(names)
    assert rows["mobilenetv2_100"] == ["3,504,872", "0.31 G", "224", "224", "ra_in1k"]
    assert rows["tf_efficientnetv2_s"] == ["21,458,488", "5.32 G", "300", "384", "in21k_ft_in1k, in1k, in21k"]
    assert rows["mobilenetv2_tiny"][-1] == "-"


def test_the_number_of_classes_can_be_chosen(monkeypatch, capsys):
    monkeypatch.setattr("cxr_jax.models.registry.ARCHITECTURES", {"mobilenetv2_100": ARCHITECTURES["mobilenetv2_100"]})
    models.main(["--classes", "2"])
    printed = capsys.readouterr().out
    assert re.search(r"mobilenetv2_100 +│ +2,226,434 ", printed)
    assert "counted with 2 classes" in printed


def test_an_unknown_option_is_one_sentence():
    with pytest.raises(UserError, match="--colour"):
        models.main(["--colour", "red"])


def test_multiply_adds_grow_with_the_image_and_nothing_is_compiled(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    small, large = (measure("mobilenetv2_100", classes=1000, image_size=size) for size in (112, 224))
    assert small.parameters == large.parameters
    assert 3.5 < large.multiply_adds / small.multiply_adds < 4.1
    # the paper counts 300 million
    assert 0.29e9 < large.multiply_adds < 0.33e9


@pytest.mark.parametrize("classes", ["0", "-1"])
def test_a_network_without_classes_is_refused(classes):
    with pytest.raises(UserError, match="must be 1 or more"):
        models.main(["--classes", classes])
