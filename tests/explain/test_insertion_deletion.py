import dataclasses

import numpy as np
import pytest
from scipy.special import expit, softmax

from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.explain.insertion_deletion import (
    OTHER,
    OWN,
    RANDOM,
    blurred,
    draw_curves,
    judge_curves,
    other_of_class,
)
from cxr_jax.explain.verdict import ALL_OF_SEVERAL
from cxr_jax.runs.predictions import probability_of


@pytest.fixture(scope="module")
def maps(bright_patch, patches):
    return heat_maps(bright_patch, patches.images, patches.classes, "cells").heat


@pytest.fixture(scope="module")
def curves(bright_patch, patches, maps):
    return draw_curves(bright_patch, patches.images, patches.classes, maps)


def test_a_network_that_looks_at_one_cell_is_explained_by_that_cell(patches, maps):
    hottest = maps.reshape(len(maps), -1).argmax(axis=1)
    np.testing.assert_array_equal(hottest, patches.cells[:, 0] * 6 + patches.cells[:, 1])
    assert ((maps > 0.05).sum(axis=(1, 2)) == 1).all()


def test_its_map_beats_random_maps_and_those_of_other_images(patches, curves):
    insertion, deletion = judge_curves(curves, patches.classes, patches.clusters)
    assert insertion.passes and deletion.passes
    assert insertion.means["PNEUMONIA"].low > 0.2
    assert deletion.means["PNEUMONIA"].high < -0.2
    assert curves.areas("insertion", OWN).mean() > curves.areas("insertion", OTHER).mean() + 0.2
    assert "for PNEUMONIA" in insertion.told and "NORMAL" not in insertion.told


@pytest.mark.parametrize(
    ("kind", "probabilities"), [("exclusive", lambda logits: softmax(logits, axis=1)), ("findings", expit)]
)
def test_the_curves_of_other_classes_follow_the_probability_of_the_explained_one(
    bright_patch, patches, maps, kind, probabilities
):
    description = dataclasses.replace(bright_patch.description, classes=("bacteria", "virus"), kind=kind)
    other = dataclasses.replace(bright_patch, description=description)
    classes = np.arange(6) % 2
    found = draw_curves(other, patches.images[:6], classes, maps[:6])
    whole = probabilities(other.logits(patches.images[:6]))[np.arange(6), classes]
    np.testing.assert_allclose(found.scores["deletion"][OWN][:, 0], whole, rtol=1e-5)
    for verdict in judge_curves(found, classes, patches.clusters[:6], description.classes):
        assert list(verdict.means) == [ALL_OF_SEVERAL]
    for verdict in judge_curves(found, np.ones(6, int), patches.clusters[:6], description.classes):
        assert list(verdict.means) == ["virus"]


def test_a_random_map_fails(bright_patch, patches, maps):
    noise = np.random.default_rng(11).random(maps.shape).astype(np.float32)
    found = draw_curves(bright_patch, patches.images, patches.classes, noise)
    assert [verdict.passes for verdict in judge_curves(found, patches.classes, patches.clusters)] == [False, False]


def test_a_map_of_the_wrong_place_fails(bright_patch, patches, maps):
    found = draw_curves(bright_patch, patches.images, patches.classes, 1 - maps)
    insertion, deletion = judge_curves(found, patches.classes, patches.clusters)
    assert not insertion.passes and not deletion.passes
    assert insertion.means["PNEUMONIA"].high < 0 < deletion.means["PNEUMONIA"].low


def test_a_network_that_answers_the_same_to_nothing_fails(curves, patches):
    """Its areas can differ from those of random maps by a hair in the right direction, and still tell nothing."""
    random = np.random.default_rng(0).random((20, 13)) * 1e-4
    scores = {
        kind: {OWN: 0.99 + sign * (1e-3 + random), RANDOM: 0.99 + random, OTHER: 0.99 + random}
        for kind, sign in (("insertion", 1), ("deletion", -1))
    }
    insertion, deletion = judge_curves(curves._replace(scores=scores), patches.classes, patches.clusters)
    assert insertion.means["PNEUMONIA"].low > 0 > deletion.means["PNEUMONIA"].high
    assert insertion.passes is False and deletion.passes is False


def test_curves_begin_and_end_with_the_whole_image_and_with_none_of_it(bright_patch, patches, curves):
    whole = probability_of(bright_patch.logits(patches.images))
    smooth = probability_of(bright_patch.logits(np.stack([blurred(image) for image in patches.images])))
    assert curves.shares[0] == 0 and curves.shares[-1] == 1
    for name in (OWN, RANDOM, OTHER):
        np.testing.assert_allclose(curves.scores["insertion"][name][:, -1], whole, atol=1e-6)
        np.testing.assert_allclose(curves.scores["insertion"][name][:, 0], smooth, atol=1e-6)
        np.testing.assert_allclose(curves.scores["deletion"][name][:, 0], whole, atol=1e-6)
        assert (curves.scores["deletion"][name][:, -1] < 0.5).all()


def test_the_score_is_that_of_the_explained_class(bright_patch, patches, maps):
    rows = slice(0, 3)
    ill, healthy = (
        draw_curves(bright_patch, patches.images[rows], np.full(3, value), maps[rows], seed=4) for value in (1, 0)
    )
    for kind in ("insertion", "deletion"):
        np.testing.assert_allclose(ill.scores[kind][OWN], 1 - healthy.scores[kind][OWN], atol=1e-6)


def test_the_area_of_a_straight_line_is_a_half(curves):
    line = curves._replace(scores={"insertion": {OWN: np.stack([curves.shares, 1 - 0 * curves.shares])}})
    np.testing.assert_allclose(line.areas("insertion", OWN), [0.5, 1.0])


def test_another_image_is_one_of_the_same_class():
    classes = np.array([0, 1, 1, 0, 1, 0])
    partners = other_of_class(classes)
    np.testing.assert_array_equal(classes[partners], classes)
    assert sorted(partners) == list(range(6))
    assert (partners != np.arange(6)).all()
    assert other_of_class(np.array([1, 0, 0]))[0] == 0
