"""The sections of a report, its files and words, and what it tells of the run."""

import importlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import read_conformal
from cxr_jax.evaluation.judged_sets import read_uncertainty
from cxr_jax.evaluation.metrics import METRICS
from cxr_jax.reporting import report
from cxr_jax.reporting.explanations import MOST_PICTURES
from cxr_jax.reporting.glossary import GLOSSARY
from cxr_jax.reporting.report import render_report, write_report
from cxr_jax.runs.files import write_json, write_text
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.runs.trained_on import OFFICIAL_TEST
from cxr_jax.vocabulary import DISCLAIMER
from tests.reporting.report_page import Page

STORY = [
    *("verdict", "use", "patients", "results", "operating-point", "calibration", "subgroups", "shift"),
    *("uncertainty", "failures"),
    *("explanations", "quality", "baselines", "looks", "training", "model", "environment", "reproduce", "glossary"),
]
CONTROLS = {"prevalence", "prevalence-choice", "prevalence-told", "print-everything"}


def sections_of(page):
    return {name for name in page.ids if not name.startswith(("term-", "figure-"))} - CONTROLS


def test_a_whole_run_has_every_section_and_figure(whole):
    page = Page(render_report(whole))
    figures = {"training_iterations", "training_epochs", "confusion_matrix", "roc", "precision_recall"}
    figures |= {"score_distributions", "reliability", "decision_curve", "failure_cases"}
    sections = set(STORY) - {"uncertainty", "quality", "baselines"}
    assert sections_of(page) == sections
    assert {name for name in page.ids if name.startswith("figure-")} == {f"figure-{name}" for name in figures}
    links = {value[1:] for tag, name, value in page.attributes if tag == "a" and name == "href"}
    assert links == sections - {"model"}


def test_the_story_begins_with_the_verdict_and_ends_with_how_it_was_made(complete):
    page = Page(render_report(complete))
    assert [name for name in page.ids if name in STORY] == STORY
    links = [value[1:] for tag, name, value in page.attributes if tag == "a" and name == "href"]
    assert links == [name for name in STORY if name != "model"]
    assert len(page.ids) == len(set(page.ids))


def test_the_verdict_is_told_in_counts_with_the_baseline_beside_it(complete, example):
    text = Page(render_report(complete)).text
    (_, false_positives), (missed, _) = example.judgement["test"]["confusion"]
    verdict = text.index(f"Of 80 radiographs with pneumonia it missed {missed}. Of 60 without pneumonia it")
    assert f"called {false_positives} ill." in text[verdict:]
    network = example.judgement["test"]["metrics"]["roc_auc"]["value"]
    baseline = read_json(complete.quality)["baselines"]["all_measures"]["test"]["roc_auc"]["value"]
    assert f"(AUC {network:.3f})" in text and f"(AUC {baseline:.3f})" in text
    assert verdict < text.index("It must not serve") < text.index("Who labelled them") < text.index("Loss and accuracy")


def test_uncertain_calls_are_told_at_every_error_rate_and_for_every_kind_of_image(complete, example):
    text = Page(render_report(complete)).text
    told = text[text.index("A class is possible") : text.index("A group without a name")]
    bounds = read_conformal(complete.conformal).classes
    for entry in bounds:
        assert f"{entry.label}: {entry.images} images of {entry.groups} group" in told
    judged = read_uncertainty(complete.uncertainty)
    for row in judged.test:
        everything = row.of("all")
        assert f"{100 * row.error_rate:g} % {row.of('NORMAL').covered.value:.3f}" in told
        assert f"{everything.uncertain.value:.3f}" in told
    assert "bacteria" in told and str(np.sum(np.array(example.test.subtype) == "bacteria")) in told


def test_every_dotted_word_has_its_meaning_on_the_page(complete):
    page = Page(render_report(complete))
    opened = {value for _, name, value in page.attributes if name == "popovertarget"}
    assert len(opened) > 15
    assert opened <= set(page.ids)
    assert {f"term-{name}" for name in METRICS} <= opened
    assert {f"term-{key}" for key in GLOSSARY} <= set(page.ids)


def test_every_number_is_traced_to_a_function_and_a_source(whole):
    assert set(METRICS) < set(GLOSSARY)
    text = Page(render_report(whole)).text
    for key, term in GLOSSARY.items():
        assert term.meaning in text
        # words that no function computes need no source
        assert bool(term.source) == bool(term.computed_by)
        if term.computed_by:
            assert re.search(r"\b(18|19|20)\d\d\b", term.source), key
            module, _, name = term.function.rpartition(".")
            assert getattr(importlib.import_module(module), name) is term.computed_by
            assert f"{term.source} · {term.function}" in text
        if key in METRICS:
            assert term.computed_by is METRICS[key].function


def test_meanings_are_sentences_and_no_docstrings():
    for term in GLOSSARY.values():
        assert term.meaning.endswith(".")
        assert not re.search(r"\[[A-Z, ]+\]|Returns?:|`|float64", term.meaning)


def test_the_official_test_split_is_named_by_its_counts(bare, example, data_card):
    def patients():
        return Page(render_report(bare)).text.split("Whose radiographs these are")[1].split("Results")[0]

    assert "Kermany" not in patients()
    assert "Who labelled them Not known." in patients()
    test = {**example.judgement["test"], "classes": dict(OFFICIAL_TEST)}
    write_json(bare.evaluation, {**example.judgement, "test": test})
    assert "children of one to five years" in patients()
    assert "Two physicians read each radiograph" in patients()
    assert "Age and sex of each patient" in patients()
    # phantoms can be drawn in these numbers too
    write_json(bare.data_card, data_card(phantom=True))
    assert "Kermany" not in patients()


def test_the_file_needs_nothing_from_outside(whole):
    html = write_report(whole).read_text(encoding="utf-8")
    page = Page(html)
    sources = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "poster", "data")]
    assert len(sources) > 15
    assert all(value.startswith(("data:image/", "#")) for value in sources)
    # the one script is the same in every report
    assert re.findall(r"<script[^>]*>", html) == ["<script>"]
    assert (Path(report.__file__).parent / "templates" / "prevalence.js").read_text().strip() in html
    assert "@import" not in html
    assert "url(" not in html
    assert not re.search(r"\son\w+=", html)


def test_everything_from_outside_is_escaped(whole, example):
    judgement = json.loads(json.dumps(example.judgement))
    judgement["warnings"] = ["<b>loud</b>"]
    judgement["test"]["worst_errors"][0]["file"] = '"><img src=x onerror=alert(1)>.jpeg'
    write_json(whole.evaluation, judgement)
    html = render_report(whole)
    page = Page(html)
    assert "<b>" not in html
    assert "onerror=alert(1)>.jpeg" not in html
    for raw in ("<b>loud</b>", "a<b>_seed0", "<script>alert(1)</script>", "<file> names", "<0> (CPU)"):
        assert raw in page.text


def test_the_name_of_a_run_cannot_leave_the_head_of_a_printed_page(example, tmp_path):
    run = RunFolder(tmp_path / 'x"; } <script>alert(1)\\')
    write_json(run.evaluation, example.judgement)
    style = render_report(run).split("<style>")[1].split("</style>")[0]
    assert "<script>" not in style
    assert r'@top-left { content: "x\22 ; \7d  \3c script\3e alert\28 1\29 \5c "; }' in style


def test_the_run_tells_its_data_training_looks_and_environment(whole):
    text = Page(render_report(whole)).text
    assert "5,856 images in 4,097 groups" in text
    assert "No group and no identical file is in two of these splits." in text
    assert "40 iterations (2 epochs) in 41 seconds; patience ran out." in text
    assert "looked at twice" in text
    assert "32 files are copies of others" in text
    assert "best, iteration 30 0.25 78.1%" in text
    assert "f1e2d3" in text
    assert "cxr-jax train config.toml" in text
    assert text.count(DISCLAIMER) == 2


def test_the_checkpoint_that_was_judged_is_named(whole):
    def training():
        return Page(render_report(whole)).text.split("patience ran out.")[1].split("Loss and accuracy")[0]

    # the last look of this run was at its last checkpoint
    assert "The last checkpoint is the one judged here. Iteration 30 was the best on validation" in training()
    append_look(whole, {"checkpoint": "last", "step": 40})
    assert "The last checkpoint, of iteration 40, is the one judged here." in training()
    append_look(whole, {"checkpoint": "best", "step": 30})
    assert "iteration 30 was the best on validation and is the one judged here." in training()
    whole.ledger.unlink()
    assert "iteration 30 was the best on validation." in training()
    write_text(whole.config, whole.config.read_text() + '[validation]\ncheckpoint = "last"\nmonitor = "roc_auc"\n')
    assert "best on validation by roc_auc; it was not used, as the config says." in training()


def test_a_gallery_names_every_file_and_its_chance(complete):
    html = render_report(complete)
    text = Page(html).text
    assert text.count("P(pneumonia) 7 %") == 9 + 3
    assert text.count("✗ PNEUMONIA, called NORMAL") == 9 + 3
    assert text.count("person1234_bacteria_5678_with_a_long_name.jpeg") >= 9 + 3
    assert "evidence for NORMAL" in text
    assert "On the left the radiograph, on the right the same under its heat map." in text
    assert html.count("data:image/jpeg;base64,") == 9 + 2 * 3


def test_every_tile_of_phantoms_says_so(complete, data_card, tmp_path):
    run = RunFolder(shutil.copytree(complete.path, tmp_path / "run"))
    assert "PHANTOM" not in Page(render_report(run)).text
    write_json(run.data_card, data_card(phantom=True))
    assert Page(render_report(run)).text.count("PHANTOM") == 9 + 2 * 3


def test_leakage_is_told_loudly(whole, data_card):
    leaking = data_card(phantom=False)
    leaking["proof"] = {"holds": False, "groups_in_two_splits": ["g1", "g2"], "identical_files_in_two_splits": []}
    write_json(whole.data_card, leaking)
    assert "Leakage: 2 groups and 0 sets" in Page(render_report(whole)).text


def test_files_that_are_no_images_of_the_set_are_told_with_their_reason(whole, data_card):
    assert "Every image could be read." in Page(render_report(whole)).text
    card = data_card(phantom=False)
    card["left_out"] = [{"file": "train/<b>.jpeg", "reason": "it is damaged"}]
    card["passed_over"] = [{"folder": "masks", "reason": "masks of lungs", "count": 1, "files": ["masks/a.png"]}]
    write_json(whole.data_card, card)
    text = Page(render_report(whole)).text
    assert "1 image could not be read and was left out." in text
    assert "1 file in masks: masks of lungs" in text
    assert "train/<b>.jpeg : it is damaged" in text


def test_phantoms_have_a_banner_and_real_radiographs_have_none(whole, data_card):
    page = Page(render_report(whole))
    assert "Phantoms, not patients" not in page.text
    write_json(whole.data_card, data_card(phantom=True))
    page = Page(render_report(whole))
    assert page.text.strip().removeprefix(page.words[0]).count("Phantoms, not patients.") == 1
    assert ("p", "role", "alert") in page.attributes
    assert "it was trained and judged on drawn images" in page.text


def test_a_judgement_alone_gives_a_report(bare):
    page = Page(render_report(bare))
    sections = {"verdict", "use", "patients", "results", "operating-point", "calibration", "subgroups", "shift"}
    assert sections_of(page) == sections | {"failures", "looks", "model", "glossary"}
    assert "the predictions come from a table" in page.text
    assert "how often these images were looked at before is unknown" in page.text


def test_a_judgement_of_another_version_is_one_sentence(bare, example):
    write_json(bare.evaluation, {**example.judgement, "schema_version": 99})
    with pytest.raises(UserError, match="evaluate the run again"):
        render_report(bare)


def test_many_explanations_are_cut_short_and_a_page_of_them_goes_first(bare, pixel):
    bare.explanations.mkdir()
    for number in range(MOST_PICTURES + 3):
        (bare.explanations / f"case{number:02}.png").write_bytes(pixel)
    html = render_report(bare)
    assert html.count("Grad-CAM of case") == MOST_PICTURES
    assert "3 more lie in the run folder" in Page(html).text
    (bare.explanations / "panel.png").write_bytes(pixel)
    (bare.explanations / "panel-files.png").write_bytes(pixel)
    html = render_report(bare)
    assert html.count("Grad-CAM of panel") == html.count("Grad-CAM of ") == 2
    assert f"{MOST_PICTURES + 3} more lie in the run folder" in Page(html).text


def test_a_run_without_a_judgement_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"evaluation\.json does not exist"):
        write_report(RunFolder(tmp_path))


def test_metrics_without_training_give_no_training_section(bare):
    with MetricsLog(bare.metrics) as log:
        log.write("end", reason="interrupted", step=0, seconds=3.0)
    assert "training" not in Page(render_report(bare)).ids
