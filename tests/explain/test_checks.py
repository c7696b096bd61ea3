import dataclasses
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.explain.checks import CHECKS, Sample, check_maps, draw_sample, make_sample
from cxr_jax.explain.heat_maps import HeatMaps, heat_maps
from cxr_jax.explain.lung_field import lung_fields
from cxr_jax.explain.record import read_checks, write_checks
from cxr_jax.images.image_set import ImageSet
from cxr_jax.reporting.explanations import overlap_text
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder, read_json

STAGE = "blocks.3"


def image_set(images, normals):
    count = len(images)
    return ImageSet(
        images=images,
        labels=np.array([0] * normals + [1] * (count - normals), np.int32),
        ids=np.arange(count, dtype=np.int32),
        files=tuple(f"val/{row}.jpeg" for row in range(count)),
        groups=tuple(f"group {row // 2}" for row in range(count)),
        subtypes=("normal",) * normals + ("unknown",) * (count - normals),
    )


@pytest.fixture(scope="module")
def sample(textures):
    files = tuple(f"{row}.jpeg" for row in range(len(textures)))
    return Sample(textures, files, np.arange(len(textures)) // 2, np.array([0, 1] * 6))


@pytest.fixture(scope="module")
def findings(tiny, sample):
    changed = {"classifier.kernel": tiny.params["classifier.kernel"] * 1.5}
    alike = dataclasses.replace(tiny, params=tiny.params | changed)
    return check_maps(tiny, sample, STAGE, others=[alike])


def test_every_check_has_a_verdict_for_each_class(findings):
    assert [verdict.check for verdict in findings.verdicts] == list(CHECKS)
    assert all(set(verdict.means) == {"NORMAL", "PNEUMONIA"} for verdict in findings.verdicts)
    by_name = {verdict.check.name: verdict for verdict in findings.verdicts}
    assert by_name["randomisation"].passes
    assert by_name["seeds"].passes  # a classifier that is larger by half marks the same places
    assert by_name["seeds"].means["NORMAL"].value == pytest.approx(1, abs=1e-3)


def test_the_findings_are_json_that_a_run_keeps(findings, tmp_path):
    run = RunFolder(tmp_path)
    assert read_checks(run) is None
    stored = findings.record()
    assert write_checks(run, stored) == run.explanation_checks
    assert read_checks(run) == stored
    assert (stored.images, stored.groups, stored.blank, stored.step) == (12, 6, 0, 1)
    assert stored.explained == {"NORMAL": 6, "PNEUMONIA": 6}
    assert len(stored.cascade.rank_correlation.low) == len(stored.cascade.levels) == 7
    curves = stored.curves.by_class
    for value, name in enumerate(("NORMAL", "PNEUMONIA")):
        for kind in ("insertion", "deletion"):
            line = curves[name][kind]["map"]
            rows = findings.sample.classes == value
            np.testing.assert_allclose(line, findings.curves.scores[kind]["map"][rows].mean(axis=0))


def test_findings_that_are_kept_here_read_and_write_back_as_they_are(tmp_path):
    paths = sorted((Path(__file__).parents[2] / "results").rglob("checks.json"))
    if not paths:
        pytest.skip("no results are kept here")
    for path in paths:
        run = RunFolder(tmp_path)
        write_json(run.explanation_checks, read_json(path))
        write_checks(run, read_checks(run))
        assert read_json(run.explanation_checks) == read_json(path), path


def test_findings_of_another_version_are_refused(tmp_path):
    run = RunFolder(tmp_path)
    write_json(run.explanation_checks, {"schema_version": 99})
    with pytest.raises(UserError, match=r"run cxr-jax explain .* --check"):
        read_checks(run)


def test_without_other_runs_agreement_has_no_verdict(tiny, sample):
    found = check_maps(tiny, sample, STAGE)
    seeds = next(verdict for verdict in found.verdicts if verdict.check.name == "seeds")
    assert seeds.passes is None
    assert "--seeds" in seeds.told


def test_blank_maps_are_counted_and_left_out(tiny, sample):
    def half_blank(trained, images, classes, stage):
        found = heat_maps(trained, images, classes, stage)
        blank = np.arange(len(images)) % 2 == 1
        return HeatMaps(found.heat * ~blank[:, None, None], blank if trained is tiny else found.blank)

    found = check_maps(tiny, sample, STAGE, map_function=half_blank)
    assert found.blank == 6
    assert found.sample.files == sample.files[::2]
    assert len(found.original) == len(found.sample.images) == 6
    assert found.record().explained == {"NORMAL": 6, "PNEUMONIA": 0}


def test_too_few_maps_give_no_verdict(tiny, sample):
    def blank(trained, images, classes, stage):
        return HeatMaps(np.zeros((len(images), 2, 2), np.float32), np.ones(len(images), bool))

    found = check_maps(tiny, sample, STAGE, map_function=blank)
    assert {verdict.passes for verdict in found.verdicts} == {None}
    assert "0 of 12 maps show anything" in found.verdicts[0].told
    stored = found.record()
    assert (stored.cascade, stored.curves, stored.blank) == (None, None, 12)


def test_runs_that_see_other_images_are_not_compared(tiny, sample):
    other = dataclasses.replace(tiny, description=dataclasses.replace(tiny.description, image_size=64))
    with pytest.raises(UserError, match="name runs of one recipe"):
        check_maps(tiny, sample, STAGE, others=[other])


def test_an_unknown_stage_is_told(tiny, sample):
    with pytest.raises(UserError, match=r"no stage 'blocks\.9'"):
        check_maps(tiny, sample, "blocks.9")


@pytest.mark.parametrize(
    ("normals", "total", "count", "expected"),
    [(10, 30, 8, (4, 4)), (2, 30, 8, (2, 6)), (28, 30, 8, (6, 2)), (3, 6, 100, (3, 3)), (10, 30, 7, (4, 3))],
)
def test_a_sample_has_half_of_each_class_as_far_as_there_are(normals, total, count, expected):
    images = image_set(np.zeros((total, 4, 4), np.uint8), normals)
    rows = draw_sample(images, count)
    assert (np.sum(images.labels[rows] == 0), np.sum(images.labels[rows] == 1)) == expected
    assert len(set(rows)) == len(rows) and (np.sort(rows) == rows).all()
    np.testing.assert_array_equal(rows, draw_sample(images, count))


def test_a_sample_of_several_classes_has_as_many_of_each_and_one_of_findings_any():
    labels = np.repeat(np.array([0, 1, 2], np.int32), [3, 20, 20])
    drawn = image_set(np.zeros((43, 4, 4), np.uint8), 3)
    images = dataclasses.replace(drawn, labels=labels, classes=("normal", "bacteria", "virus"))
    assert np.bincount(labels[draw_sample(images, 13)]).tolist() == [3, 5, 5]
    assert len(draw_sample(images, 100)) == 43
    shown = dataclasses.replace(drawn, labels=np.zeros((43, 2), np.float32), classes=("Mass", "Nodule"))
    assert len(set(draw_sample(shown, 5))) == 5


def test_the_coarse_field_is_scored_against_masks(findings, tmp_path):
    assert findings.record().field_overlap is None
    sample = findings.sample
    masks = lung_fields(sample.images)
    masks[0] = False
    masked = dataclasses.replace(findings, sample=dataclasses.replace(sample, masks=masks))
    stored = masked.record()
    assert (stored.field_overlap.images, stored.field_overlap.dice.value) == (len(masks) - 1, 1)
    write_checks(RunFolder(tmp_path), stored)
    assert read_checks(RunFolder(tmp_path)) == stored
    told = overlap_text(stored)
    assert f"On the {len(masks) - 1} images with a lung mask" in told and "a Dice of 1.000 (1.000 to 1.000)" in told
    # a network that is shown a region sees no lungs to find
    description = dataclasses.replace(findings.trained.description, region="border")
    blind = dataclasses.replace(masked, trained=dataclasses.replace(findings.trained, description=description))
    assert blind.record().field_overlap is None and overlap_text(blind.record()) == ""


def test_a_sample_is_explained_for_the_called_class_or_the_asked_one(bright_patch, patches):
    images = patches.images[:6].copy()
    images[:3] = 50
    found = make_sample(bright_patch, image_set(images, 3), 6, threshold=0.5, explained=None)
    np.testing.assert_array_equal(found.classes, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.clusters, [0, 0, 1, 1, 2, 2])
    assert found.masks is None
    masks = np.zeros(images.shape, np.uint8)
    masks[:, 2:9, 3:7] = np.arange(6).reshape(-1, 1, 1) > 0
    asked = make_sample(bright_patch, image_set(images, 3), 6, threshold=0.5, explained=0, masks=masks)
    np.testing.assert_array_equal(asked.classes, 0)
    np.testing.assert_array_equal(asked.masks, masks > 0)


def test_the_other_network_is_checked_as_well(untrained_efficientnet, textures):
    files = tuple(f"{row}.jpeg" for row in range(6))
    sample = Sample(textures[:6], files, np.arange(6), np.ones(6, int))
    found = check_maps(untrained_efficientnet, sample, "blocks.2")
    assert found.cascade.levels[:2] == ("classifier", "conv_head")
    assert found.cascade.blank[-1] < 1  # the random network is alive
    assert sum(verdict.passes is None for verdict in found.verdicts) == 1
