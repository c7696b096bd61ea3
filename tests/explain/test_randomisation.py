import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.explain import heat_maps as heat_maps_module
from cxr_jax.explain.heat_maps import HeatMaps, heat_maps
from cxr_jax.explain.randomisation import (
    cascade,
    cascade_levels,
    judge_randomisation,
    randomised,
)
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import batch_stats_of, merge_model, split_model
from cxr_jax.preprocessing.normalise import normalise

STAGE = "blocks.3"
CLASSES, CLUSTERS = np.ones(12, int), np.arange(12)


def run_cascade(trained, images, map_function, **options):
    classes = np.ones(len(images), int)
    original = map_function(trained, images, classes, STAGE).heat
    return cascade(trained, images, classes, STAGE, original=original, map_function=map_function, **options)


def test_grad_cam_depends_on_the_weights(tiny, textures):
    found = run_cascade(tiny, textures, heat_maps)
    assert found.levels == ("classifier", "conv_head", "blocks.3", "blocks.2", "blocks.1", "blocks.0", "conv_stem")
    assert found.rank_correlation.shape == found.similarity.shape == (12, 7)
    verdict = judge_randomisation(found, CLASSES, CLUSTERS)
    assert verdict.passes
    assert verdict.means["PNEUMONIA"].value == pytest.approx(found.rank_correlation.mean())
    assert found.blank.max() < 0.6  # measured statistics keep the random network alive
    assert found.examples.shape[:2] == (3, 7)
    assert not np.allclose(found.examples[0, 0], found.examples[0, -1])


def test_a_map_that_ignores_the_weights_fails(tiny, textures):
    def dark_places(trained, images, classes, stage):
        return HeatMaps(1 - images[:, ::6, ::6].astype(np.float32) / 255, np.zeros(len(images), bool))

    verdict = judge_randomisation(run_cascade(tiny, textures, dark_places), CLASSES, CLUSTERS)
    assert verdict.passes is False
    assert verdict.means["PNEUMONIA"].value == pytest.approx(1)


def test_a_map_that_only_the_stem_can_move_fails(tiny, textures):
    """Edges of the first layer, as guided backpropagation shows them: the last level alone would let them pass."""

    def of_the_stem(trained, images, classes, stage):
        weight = np.asarray(trained.params["conv_stem.kernel"]).ravel()
        draw = np.random.default_rng(np.frombuffer(weight.tobytes(), np.uint32))
        return HeatMaps(draw.random((len(images), 8, 8), np.float32), np.zeros(len(images), bool))

    found = run_cascade(tiny, textures, of_the_stem)
    assert abs(found.rank_correlation[:, -1].mean()) < 0.3
    np.testing.assert_allclose(found.rank_correlation[:, :-1], 1)
    assert judge_randomisation(found, CLASSES, CLUSTERS).passes is False


def test_one_program_serves_every_level(tiny, textures, monkeypatch):
    traces = []

    def counted(*arguments):
        traces.append(arguments)
        return original(*arguments)

    original = heat_maps_module.grad_cam
    monkeypatch.setattr(heat_maps_module, "grad_cam", counted)
    # a stage that no other test explains, so that nothing is compiled yet
    classes = np.zeros(12, int)
    maps = heat_maps(tiny, textures, classes, "blocks.1", batch_size=5).heat
    cascade(tiny, textures, classes, "blocks.1", original=maps, map_function=heat_maps, draws=2)
    assert len(traces) == 2  # batches of 5, and of 12


def test_equal_seeds_draw_equal_weights_and_others_do_not(tiny, textures):
    images = textures[:3]
    first, again, other = (run_cascade(tiny, images, heat_maps, draws=1, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.rank_correlation, again.rank_correlation)
    assert (first.rank_correlation != other.rank_correlation).any()


def fresh_arrays():
    return split_model(build_model("mobilenetv2_tiny", classes=2, seed=99))[1:]


def test_only_the_named_stages_are_drawn_anew(tiny, textures):
    fresh = fresh_arrays()
    stages = ("classifier", "conv_head")
    changed = randomised(tiny, stages, fresh, textures)
    for name, value in changed.params.items():
        expected = fresh[0] if name.split(".")[0] in ("classifier", "conv_head", "bn2") else tiny.params
        np.testing.assert_array_equal(value, expected[name])
    for name, value in changed.batch_stats.items():
        assert np.array_equal(value, tiny.batch_stats[name]) == (not name.startswith("bn2"))
    assert changed.graphdef is tiny.graphdef


def test_measured_statistics_are_those_of_the_batch(tiny, textures):
    """With every stage drawn anew, running statistics give nearly what the batch's own give."""
    changed = randomised(tiny, cascade_levels(tiny.model().stage_names), fresh_arrays(), textures)
    pixels = normalise(jnp.asarray(textures), tiny.mean, tiny.std)

    @jax.jit
    def features_and_moved(params, batch_stats, pixels):
        model = merge_model(changed.graphdef, params, batch_stats)
        features = model.features(pixels)
        model(pixels, train=True)  # moves its statistics by a tenth of nothing, were they already the batch's
        return features, batch_stats_of(model)

    running, statistics = features_and_moved(changed.params, changed.batch_stats, pixels)
    assert statistics.keys() == changed.batch_stats.keys()
    for name, moved in statistics.items():
        np.testing.assert_allclose(moved, changed.batch_stats[name], rtol=2e-3, atol=2e-4)
    assert running.std() > 0.1
