"""The page of the study of shortcuts says what its records say; the sweep is the one that is registered."""

import csv
import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.occlusion import Occlusion, shown, write_occlusion
from cxr_jax.evaluation.robustness import level_of
from cxr_jax.images.image_set import ImageSet
from cxr_jax.images.regions import REGIONS, WHOLE
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.sweeps.sweep import read_sweep
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]
STUDY = (ROOT / "docs/registered/shortcuts.md").read_text()


@pytest.fixture(scope="module")
def script():
    return module_of("write_shortcuts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Published runs of other recipes, laid out as those of the study; one test image has no mask."""
    root = tmp_path_factory.mktemp("shortcuts")
    leave = shutil.ignore_patterns("figures", "*.md", "sweep*", "seed2", "seed3", "seed4")
    for name, arm, region in (
        ("barnett/scratch", "base", "mask"),
        ("flips", "border", "border"),
        ("lee/mobilenetv2_two_phase", "outside_box", "outside_box"),
        ("moderate_crops", "whole", "whole"),
    ):
        shutil.copytree(ROOT / "results" / name, root / arm, ignore=leave)
        for run in (root / arm).glob("seed*"):
            network = json.loads((run / "network.json").read_text())
            (run / "network.json").write_text(json.dumps({**network, "region": region}))
            if region != "whole":
                table = (run / "predictions/test.csv").read_text().splitlines(keepends=True)
                (run / "predictions/test.csv").write_text("".join(table[:-1]))
    whole, other = (read_predictions(root / f"whole/seed{seed}/predictions/test.csv") for seed in (0, 1))
    regions = tuple(shown(level_of(name, 0, other, 0.5), whole, other, 0.5) for name in REGIONS)
    record = Occlusion("test", len(whole), 0, 0.5, "", "", level_of(WHOLE, 0, whole, 0.5), regions)
    write_occlusion(RunFolder(root / "whole" / "seed0").occlusion_of("test"), record)
    checked = RunFolder(root / "whole" / "seed0").explanation_checks
    checked.parent.mkdir()
    shutil.copy(ROOT / "results/barnett/scratch/seed0/explanations/checks.json", checked)
    (root / "README.md").write_text("# Mine\n\nA sentence.\n")
    return root


@pytest.fixture(scope="module")
def study(script, folder):
    return script.read_study(folder, 100)


def test_every_arm_is_a_row_beside_the_mask_on_the_images_that_have_one(script, folder, capsys):
    script.main([str(folder), "100"])
    written = [Path(line.removeprefix("Written: ")) for line in capsys.readouterr().out.splitlines()]
    assert {path.name for path in written} == {"shortcuts.png", "shortcuts.svg", "shortcuts.csv", "README.md"}
    assert all(path.is_file() for path in written)
    rows = {row["region"]: row for row in csv.DictReader((folder / "shortcuts.csv").open())}
    assert list(rows) == ["mask", "outside_box", "border", "whole"]
    assert rows["mask"]["difference"] == ""
    for region in ("border", "outside_box", "whole"):
        difference = float(rows[region]["roc_auc"]) - float(rows["mask"]["roc_auc"])
        assert float(rows[region]["difference"]) == pytest.approx(difference)
        assert float(rows[region]["difference_low"]) < difference < float(rows[region]["difference_high"])
    judged = [json.loads(path.read_text()) for path in folder.glob("border/seed?/evaluation.json")]
    told = {name: float(rows["border"][f"{name}_at_rule"]) for name in ("accuracy", "sensitivity", "specificity")}
    for name, value in told.items():
        assert value == pytest.approx(np.mean([one["test"]["metrics"][name]["value"] for one in judged]), abs=0.005)
    on_validation = np.mean([one["validation"]["metrics"]["roc_auc"]["value"] for one in judged])
    assert float(rows["border"]["roc_auc_on_validation"]) == pytest.approx(on_validation)
    page = (folder / "README.md").read_text()
    assert page.startswith("# Mine\n\nA sentence.\n") and "623 official test images that have a mask" in " ".join(
        page.split()
    )
    assert "Not measured yet: the mask itself (2 of 3 seeds), lungs alone, all but the lungs" in page
    assert "regions shown to networks of whole images" in page and "Not a medical device" in page


def test_the_conclusion_is_the_registered_one(script, study):
    arms = {arm.region: arm for arm in study.arms}

    def concluded(**ends):
        changed = []
        for region, (low, high) in ends.items():
            over = dataclasses.replace(arms[region].difference.over_seeds, interval=Interval(low, high, "drawn"))
            answer = dataclasses.replace(arms[region].difference, over_seeds=over)
            changed.append(dataclasses.replace(arms[region], difference=answer))
        return script.conclusion(dataclasses.replace(study, arms=(arms["mask"], *changed)))

    found = concluded(outside_box=(0.01, 0.2), border=(-0.1, 0.1))
    assert "outside the lungs, beyond the outline" in found and "(all but the box around the lungs)" in found
    none = concluded(outside_box=(-0.1, 0.03), border=(-0.2, 0.04))
    assert none.startswith("No shortcut outside the lungs was found") and "up to +0.040" in none
    assert "the border alone is missing" in concluded(outside_box=(0.01, 0.2))


def test_networks_of_whole_images_are_told_by_region(script, study):
    ((seed, record),) = study.occlusions
    assert seed == "seed0"
    page = script.page(study, 100)
    assert "### Networks of whole radiographs, shown regions" in page
    row = next(line for line in page.splitlines() if line.startswith("| lungs alone") and ";" in line)
    assert f"{record.regions[1].level.roc_auc.value:.3f};" in row


def test_heat_maps_of_whole_images_are_told_by_check(script, study):
    page = script.page(study, 100)
    assert "### Heat maps of networks of whole radiographs, by the masks" in page
    ((_, record),) = study.checks
    for verdict in record.checks:
        told = f"{verdict.word}: {verdict.told} |"
        assert (told in page) == (verdict.check.name in ("lungs", "pointing", "border"))


def test_without_the_mask_it_is_one_sentence(script, tmp_path, capsys):
    with pytest.raises(UserError, match="holds no runs of the region 'mask'"):
        script.main([str(tmp_path / "nothing")])


def test_the_sweep_trains_the_registered_arms_and_changes_the_region_alone():
    sweep = read_sweep(ROOT / "configs/sweeps/shortcuts.toml")
    table = dict(re.findall(r"^\| `(\w+)` \| `(\w+)`", STUDY, re.MULTILINE))
    assert {variant.name: variant.config.data.region for variant in sweep.variants} == table
    assert sorted(table.values()) == sorted((*REGIONS, WHOLE)) and sweep.seeds == (0, 1, 2)
    base = sweep.variants[0].config
    for variant in sweep.variants:
        data = dataclasses.replace(variant.config.data, region=base.data.region)
        assert dataclasses.replace(variant.config, data=data) == base
    assert base.operating_point.rule == "sensitivity"


def test_fields_are_scored_by_class_and_with_what_lies_between_the_lungs():
    measure = module_of("measure_lung_masks")
    masks = np.zeros((8, 10, 10), bool)
    masks[:, 2:8, 1:4] = masks[:, 3:8, 6:9] = True
    whole = measure.filled(masks)
    assert (whole & ~masks).sum() == 8 * (5 * 2)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1], np.int32)
    files = tuple(f"{row}.png" for row in range(8))
    images = ImageSet(np.zeros((8, 10, 10), np.uint8), labels, np.arange(8, dtype=np.int32), files, files, files)
    fields = whole.copy()
    fields[labels == 1] = masks[labels == 1]
    found = measure.by_class(fields, masks, images)
    assert {name: told["images"] for name, told in found.items()} == {"all": 8, "NORMAL": 3, "PNEUMONIA": 5}
    assert found["PNEUMONIA"]["dice"]["value"] == 1
    assert found["NORMAL"]["iou"]["value"] == pytest.approx(33 / 43)


def test_predicted_boxes_are_held_to_those_of_the_masks():
    measure = module_of("measure_lung_boxes")
    masks = np.zeros((2, 100, 100), np.uint8)
    masks[0, 20:80, 10:90] = masks[1, 30:70, 20:80] = 1
    # the first box is right, and the second lacks the right half but for the margin
    boxes = np.array([[0.1, 0.2, 0.9, 0.8], [0.2, 0.3, 0.5, 0.7]])
    found = measure.judged_boxes(boxes, masks)
    assert found["images"] == 2
    assert found["iou"]["mean"] == pytest.approx((1 + 0.5) / 2)
    assert found["lung_pixels_kept"]["mean"] == pytest.approx((1 + 33 / 60) / 2)
    assert found["share_of_the_image"] == pytest.approx((86 * 66 + 36 * 46) / 2 / 100**2)
    assert 0.5 < found["iou_of_the_mean_box"] < 1
