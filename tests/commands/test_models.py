import re

import jax
import pytest

from cxr_jax.commands import models
from cxr_jax.errors import UserError
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.models.size import measure, measured_sizes, size_of

MEASURED_HERE = ("mobilenetv2_100", "squeezenet_tiny", "mobilenetv2_tiny", "stephen2019_tiny")


def test_every_architecture_is_a_row(capsys):
    models.main([])
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        cells = [cell.strip() for cell in line.strip("│┃ ").split("│")]
        if cells[0] in ARCHITECTURES:
            rows[cells[0]] = cells[1:]
    assert list(rows) == list(ARCHITECTURES)
    assert rows["mobilenetv2_100"] == ["3,504,872", "0.31 G", "224", "224", "ra_in1k"]
    assert rows["tf_efficientnetv2_s"] == ["21,458,488", "5.32 G", "300", "384", "in21k_ft_in1k, in1k, in21k"]
    assert rows["mobilenetv2_tiny"][-1] == "-"


def test_the_number_of_classes_can_be_chosen(capsys):
    models.main(["--classes", "2"])
    printed = capsys.readouterr().out
    assert re.search(r"mobilenetv2_100 +│ +2,226,434 ", printed)
    assert "counted with 2 classes" in printed


@pytest.mark.parametrize(
    "name", [name if name in MEASURED_HERE else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_the_table_holds_what_is_measured(name):
    for classes in (2, 700):
        kept, found = size_of(name, classes=classes), measure(name, classes=classes)
        assert kept.parameters == found.parameters
        assert kept.multiply_adds == pytest.approx(found.multiply_adds, rel=1e-6)


def test_every_network_is_in_the_table_and_no_other():
    assert list(measured_sizes()) == list(ARCHITECTURES)


def test_what_is_not_in_the_table_is_measured(monkeypatch):
    found = measure("mobilenetv2_tiny", classes=2, image_size=64)
    assert size_of("mobilenetv2_tiny", classes=2, image_size=64) == found
    assert size_of("mobilenetv2_tiny", classes=2, until="conv_stem").parameters < found.parameters
    monkeypatch.setitem(ARCHITECTURES, "own", ARCHITECTURES["mobilenetv2_tiny"])
    assert size_of("own", classes=2).parameters == found.parameters
    with pytest.raises(UserError, match="no model called"):
        size_of("zebra", classes=2)


def test_an_unknown_option_is_one_sentence():
    with pytest.raises(UserError, match="--colour"):
        models.main(["--colour", "red"])


def test_multiply_adds_grow_with_the_image_and_nothing_is_compiled(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("compiled")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    small, large = measure("mobilenetv2_100", classes=1000, image_size=112), size_of("mobilenetv2_100", classes=1000)
    assert small.parameters == large.parameters
    assert 3.5 < large.multiply_adds / small.multiply_adds < 4.1
    # the paper counts 300 million
    assert 0.29e9 < large.multiply_adds < 0.33e9


@pytest.mark.parametrize("classes", ["0", "-1"])
def test_a_network_without_classes_is_refused(classes):
    with pytest.raises(UserError, match="must be 1 or more"):
        models.main(["--classes", classes])
