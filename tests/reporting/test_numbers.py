import subprocess
import sys

from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.measures import Measured
from cxr_jax.reporting.numbers import interval_text, measured_text

INTERVAL = Interval(0.88, 0.94, "DeLong")


def test_a_measure_stands_with_the_interval_to_show():
    assert measured_text(Measured("Area", 0.912, None, (INTERVAL, Interval(0, 1, "other")))) == "0.912 (0.880–0.940)"
    assert measured_text(Measured("Area", 0.912, None, ()), digits=2) == "0.91"
    assert measured_text(Measured("Area", None, "one class only", ())) == "undefined"


def test_an_interval_stands_in_brackets_and_in_per_cent_if_asked():
    assert interval_text(INTERVAL, digits=1, factor=100) == "(88.0–94.0)"
    assert interval_text(None) == ""


def test_text_tables_load_no_figures():
    code = "import sys, cxr_jax.reporting.tables; print('matplotlib' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
