from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import (
    TO,
    interval_text,
    measured_text,
    number_text,
    range_text,
    with_deviation,
    with_interval,
)

INTERVAL = Interval(0.88, 0.94, "DeLong")


def test_a_measure_stands_with_the_interval_to_show():
    assert measured_text(Measured("Area", 0.912, None, (INTERVAL, Interval(0, 1, "other")))) == "0.912 (0.880–0.940)"
    assert measured_text(Measured("Area", 0.912, None, ()), form=".2f") == "0.91"
    assert measured_text(Measured("Area", None, "one class only", ())) == "undefined"


def test_an_interval_stands_in_brackets_and_in_per_cent_if_asked():
    assert interval_text(INTERVAL, ".1f", 100) == "(88.0–94.0)"
    assert interval_text(None) == ""
    assert interval_text(Interval(-0.05, 0.15, "DeLong"), "+.3f", word=TO) == "(−0.050 to +0.150)"


def test_a_number_has_a_real_minus_and_the_form_that_is_asked_for():
    assert number_text(-0.0512) == "−0.051"
    assert number_text(0.0512, "+.1f", 100) == "+5.1"
    assert range_text(0.051, 0.12, ".0%", word=TO) == "5% to 12%"


def test_a_number_without_an_interval_stands_alone():
    assert with_interval(-0.1, Interval(-0.25, 0.05, "DeLong"), "+.2f", word=TO) == "−0.10 (−0.25 to +0.05)"
    assert with_interval(0.25, None, ".2f") == "0.25"


def test_a_mean_without_a_deviation_stands_alone():
    assert with_deviation(-0.1, 0.02, ".1f", 100) == "−10.0 ± 2.0"
    assert with_deviation(0.912, None) == "0.912"
