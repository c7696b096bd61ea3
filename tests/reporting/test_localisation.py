"""What is told and drawn of maps that are held against boxes."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from cxr_jax.evaluation.localisation import Answer, BoxedMap, Localisation, judge_boxes, write_localisation
from cxr_jax.explain.localise import Picture
from cxr_jax.images.boxes import Box
from cxr_jax.reporting.localisation import DRAWN, FOUND, draw_localisation, localisation_rows
from cxr_jax.reporting.report import render_report

TRUTH, SPOT = Box(20, 20, 40, 40), Box(30, 30, 10, 10)


def boxed(number, group):
    return BoxedMap(f"{number}.png", "Mass", group, 100, 200, (TRUTH,), Answer((SPOT, TRUTH), (35.5, 35.5)))


def record(maps):
    how = {"dataset": "films", "images_of": "test", "phantom": True, "architecture": "tiny", "step": 3}
    told = {"checkpoint_sha256": "00", "stage": "last", "levels": (60, 180), "left_out": {}}
    return Localisation(**how, **told, files=tuple(entry.file for entry in maps), parts=judge_boxes(maps))


def test_a_row_tells_counts_share_interval_false_positives_and_chance():
    lines = localisation_rows(record([boxed(1, "a"), boxed(2, "b"), boxed(3, "c")]))
    assert "phantoms and no patients" in lines[0]
    assert "Mass: 3 boxes in 3 images of 3 patients, 3 maps" in lines
    (row,) = (line for line in lines if line.strip().startswith("IoU > 0.5"))
    assert row.split()[3:7] == ["3", "of", "3", "100%"]
    assert " 1.00 " in row
    assert row.split()[-1] == "+0%"
    assert "A place by lot lies in a box with a chance of 8.0%." in [line.strip() for line in lines]


def test_one_patient_has_no_chance_to_be_told():
    lines = localisation_rows(record([boxed(1, "a"), boxed(2, "a")]))
    (row,) = (line for line in lines if line.strip().startswith("pointing"))
    assert row.split()[-3:] == ["–", "–", "–"]


def test_the_report_has_a_section_of_every_record(whole):
    assert 'id="boxes"' not in render_report(whole)
    found = record([boxed(1, "a"), boxed(2, "b"), boxed(3, "c")])
    write_localisation(whole.path / "localisation.json", found)
    write_localisation(whole.external / "elsewhere" / "localisation.json", replace(found, images_of="all"))
    section = render_report(whole).partition('<section id="boxes">')[2].partition("</section>")[0]
    assert "3 images of films, test" in section
    assert section.count("Mass: 3 boxes in 3 images of 3 patients") == 2
    row = section.partition("IoU &gt; 0.5</th>")[2].partition("</tr>")[0]
    assert "3 of 3" in row and "1.00" in row
    assert "drawn by a program" in section


def test_the_boxes_are_drawn_at_the_size_of_the_picture():
    maps = [boxed(1, "a"), boxed(2, "b")]
    pictures = [Picture(entry, np.zeros((100, 50, 3), np.uint8)) for entry in maps]
    figure = draw_localisation(record(maps), pictures)
    patches = figure.axes[0].patches
    assert [patch.get_linestyle() for patch in patches] == ["--", "--", "-"]
    assert patches[-1].get_bbox().bounds == pytest.approx((10, 10, 20, 20))
    colours = [matplotlib.colors.to_hex(patch.get_edgecolor()).upper() for patch in patches]
    assert colours == [FOUND, FOUND, DRAWN]
