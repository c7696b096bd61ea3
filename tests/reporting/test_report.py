import importlib
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.conformal import read_conformal
from cxr_jax.evaluation.judge import judge
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

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what a test asks for."""

    def __init__(self, html):
        super().__init__()
        self.open, self.attributes, self.ids, self.words = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture
def bare(example, tmp_path):
    """A folder with a judgement and nothing else."""
    run = RunFolder(tmp_path / "bare")
    write_json(run.evaluation, example.judgement)
    return run


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


def test_a_call_is_valued_at_the_prevalence_that_the_config_declares(whole):
    def rows():
        text = Page(render_report(whole)).text
        return text[text.index("Pneumonia in") : text.index("Whose radiographs these are")]

    assert "declared by the config" not in rows()
    write_text(whole.config, whole.config.read_text() + "[report]\nprevalence = 0.03\n")
    page = render_report(whole)
    assert "3.0% declared by the config" in rows()
    assert "Of 1,000 radiographs, 30 show pneumonia" in Page(page).text
    assert 'id="prevalence" type="number"' in page and 'value="3"' in page


def test_every_dotted_word_has_its_meaning_on_the_page(complete):
    page = Page(render_report(complete))
    opened = {value for _, name, value in page.attributes if name == "popovertarget"}
    assert len(opened) > 15
    assert opened <= set(page.ids)
    assert {f"term-{name}" for name in METRICS} <= opened
    assert {f"term-{key}" for key in GLOSSARY} <= set(page.ids)


def test_calls_at_one_half_stand_beside_those_at_the_threshold(whole, example):
    text = Page(render_report(whole)).text
    test = example.judgement["test"]
    half = test["at_one_half"]
    for title, row, column in (("True negatives", 0, 0), ("False positives", 0, 1), ("False negatives", 1, 0)):
        counts = [judged["confusion"][row][column] for judged in (test, half, example.judgement["validation"])]
        assert re.search(rf"{title} \S+ called \S+ {counts[0]} +{counts[1]} {counts[2]} ", text)
    accuracy = half["metrics"]["accuracy"]
    assert f"Test threshold {example.point.threshold:.4g} Test for this rule Test threshold 0.5 Validation" in text
    assert f"{accuracy['value']:.3f} ({accuracy['intervals'][0]['low']:.3f}–" in text
    judgement = json.loads(json.dumps(example.judgement))
    for judged in (judgement["test"], judgement["validation"]):
        del judged["at_one_half"]
    write_json(whole.evaluation, judgement)
    assert "threshold 0.5" not in Page(render_report(whole)).text


def test_calibration_is_told_on_both_splits_before_and_after(whole, example):
    text = Page(render_report(whole)).text.split("Calibration", 2)[2].split("Subgroups")[0]
    for split in ("validation", "test"):
        for moment in ("before", "after"):
            calibration = example.judgement[split]["calibration"][moment]
            for measured in (calibration["log_loss"], *calibration["errors"]):
                assert f"{measured['value']:.3f} (" in text


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


def test_the_numbers_are_those_of_the_judgement(whole, example):
    text = Page(render_report(whole)).text
    test = example.judgement["test"]
    assert f"Right calls (accuracy) {test['metrics']['accuracy']['value']:.1%}" in text
    auc = test["metrics"]["roc_auc"]
    assert (
        f"Ranking (ROC-AUC) {auc['value']:.3f} {auc['intervals'][0]['low']:.3f} to {auc['intervals'][0]['high']:.3f}"
        in text
    )
    for measured in test["metrics"].values():
        ends = measured["intervals"][0]
        assert f"{measured['title']} {measured['value']:.3f} ({ends['low']:.3f}–{ends['high']:.3f})" in text
    assert f"Sensitivity {example.point.sensitivity:.3f} {test['metrics']['sensitivity']['value']:.3f}" in text
    assert f"The threshold is {example.point.threshold:.4g}" in text
    assert "(95.0%)" in text
    assert f"temperature of {example.point.temperature:.3f}" in text
    assert "Obuchowski for ROC-AUC" in text


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


def test_the_fall_from_validation_to_test_is_told_in_its_parts(bare, example):
    text = Page(render_report(bare)).text
    drop, prior = example.judgement["shift"]["drop"], example.judgement["shift"]["prior"]
    assert f"Balanced accuracy is {drop['validation']:.3f} on validation and {drop['test']:.3f} on test" in text
    ranking, point = (f"{-drop[name]:+.3f}".replace("-", "−") for name in ("ranking", "operating_point"))
    assert f"{ranking} because the classes are ranked otherwise" in text
    assert f"{point} because the threshold sits otherwise" in text
    assert f"from {prior['before']['accuracy']:.3f} to {prior['after']['accuracy']:.3f}" in text
    moved = example.judgement["shift"]["scores"]["NORMAL"]
    assert f"NORMAL {moved['higher_on_test']:.3f} ({moved['interval']['low']:.3f}" in text


def test_a_judgement_of_another_version_is_one_sentence(bare, example):
    write_json(bare.evaluation, {**example.judgement, "schema_version": 99})
    with pytest.raises(UserError, match="evaluate the run again"):
        render_report(bare)


@pytest.mark.parametrize("label", [0, 1])
def test_undefined_values_are_explained(bare, example, label):
    one_class = example.test.select(example.test.label == label)
    write_json(bare.evaluation, judge(None, one_class, 0.5, confidence=Confidence(resamples=20)).as_json())
    text = Page(render_report(bare)).text
    assert "ROC-AUC undefined the images are of one class only" in text
    assert "No temperature could be fitted" in text
    assert ("There is no PNEUMONIA image." in text) == (label == 0)


def test_without_errors_it_says_so(bare, example):
    right = example.test.select(example.test.label == 1)
    write_json(bare.evaluation, judge(None, right, 0.0, confidence=Confidence(resamples=20)).as_json())
    assert "Every test image was called what it is." in Page(render_report(bare)).text


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


@pytest.mark.parametrize(
    ("rule", "parameters", "told"),
    [
        ("fixed", {"threshold": 0.5}, "fixed beforehand"),
        ("youden", {}, "largest sum of sensitivity and specificity"),
        ("cost_ratio", {"cost_ratio": 5.0}, "a missed pneumonia counting as 5 false alarms"),
    ],
)
def test_every_rule_is_told_in_words(bare, example, rule, parameters, told):
    point = {**example.judgement["operating_point"], "rule": rule, "parameters": parameters}
    write_json(bare.evaluation, {**example.judgement, "operating_point": point})
    assert told in Page(render_report(bare)).text


def test_a_run_without_a_judgement_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"evaluation\.json does not exist"):
        write_report(RunFolder(tmp_path))


def test_metrics_without_training_give_no_training_section(bare):
    with MetricsLog(bare.metrics) as log:
        log.write("end", reason="interrupted", step=0, seconds=3.0)
    assert "training" not in Page(render_report(bare)).ids


def test_what_holds_for_the_threshold_and_for_its_rule_stand_side_by_side(whole, example):
    text = Page(render_report(whole)).text
    test, found = example.judgement["test"]["metrics"], example.judgement["for_rule"]
    for name in ("sensitivity", "specificity", "accuracy"):
        own, ruled = (told["intervals"][0] for told in (test[name], found["metrics"][name]))
        assert (
            f"for this threshold: {own['low']:.1%} to {own['high']:.1%} "
            f"for this rule: {ruled['low']:.1%} to {ruled['high']:.1%}"
        ) in re.sub(r"\s+", " ", text)
        assert f"{own['high']:.3f}) ({ruled['low']:.3f}–{ruled['high']:.3f})" in re.sub(r"\s+", " ", text)
    low, high = found["threshold"]["low"], found["threshold"]["high"]
    assert f"the same rule would put it between {low:.4g} and {high:.4g} (95 % of draws)" in text
    assert "anywhere from" in text.split("What it can be used for")[0]
    for entry in example.judgement["test"]["specificity_at_sensitivity"]:
        ruled = entry["transferred"]["for_rule"]["metrics"]["specificity"]["intervals"][0]
        assert f"rule ({ruled['low']:.3f}–{ruled['high']:.3f})" in text


def test_slope_intercept_and_shift_are_told_on_both_splits_before_and_after(whole, example):
    text = Page(render_report(whole)).text.split("Calibration", 2)[2].split("Subgroups")[0]
    for split in ("validation", "test"):
        for moment in ("before", "after"):
            for measured in example.judgement[split]["calibration"][moment]["recalibration"].values():
                ends = measured["intervals"][0]
                told = f"{measured['value']:.3f} ({ends['low']:.3f}–{ends['high']:.3f})"
                assert told.replace("-", "−") in text


def test_rates_with_every_group_counting_once_stand_with_the_subgroups(whole, example):
    text = Page(render_report(whole)).text.split("Subgroups", 2)[2]
    for split in ("test", "validation"):
        for measured in example.judgement[split]["by_group"].values():
            ends = measured["intervals"][0]
            assert f"{measured['value']:.3f} ({ends['low']:.3f}–{ends['high']:.3f})" in text


def test_an_evaluation_of_an_earlier_version_gives_a_report_without_what_it_lacks(whole, example):
    older = json.loads(json.dumps(example.judgement))
    older["schema_version"] = 1
    del older["for_rule"]
    for split in ("test", "validation"):
        del older[split]["by_group"]
        for moment in ("before", "after"):
            del older[split]["calibration"][moment]["recalibration"]
        for entry in older[split]["specificity_at_sensitivity"]:
            del entry["transferred"]["for_rule"]
    write_json(whole.evaluation, older)
    text = Page(render_report(whole)).text.split("Glossary")[1]
    for word in ("for this rule", "Calibration slope", "Calibration in the large", "counts once", "same rule"):
        assert word not in text
    assert f"Right calls (accuracy) {older['test']['metrics']['accuracy']['value']:.1%}" in text
