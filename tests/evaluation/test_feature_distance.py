import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation import feature_distance
from cxr_jax.evaluation.feature_distance import FeatureReference, read_feature_reference, write_feature_reference


def drawn(random, count, width=12):
    """Features of two classes with one covariance, and their labels."""
    labels = random.integers(0, 2, count)
    mixed = random.normal(size=(count, width)) @ (np.eye(width) + 0.15 * np.arange(width)[:, None])
    return (mixed + 2 * labels[:, None]).astype(np.float32), labels


def fitted(seed=0, count=800, validation=400, groups=None):
    random = np.random.default_rng(seed)
    of_validation, _ = drawn(random, validation)
    names = np.arange(validation) if groups is None else groups
    return FeatureReference.of("blocks.5", drawn(random, count), (of_validation, names)), random


def test_of_new_images_like_those_of_training_about_the_share_is_beyond_the_limit():
    beyond = []
    for seed in range(30):
        reference, random = fitted(seed)
        features, _ = drawn(random, 2000)
        distance = reference.distance(features)
        assert np.sqrt(np.mean(distance**2)) == pytest.approx(1, abs=0.1)
        beyond.append(np.mean(distance > reference.limit.distance))
    assert reference.limit.share == 0.01 and reference.limit.images == 400
    # the mean over calibrations of 400 images each, themselves drawn
    assert np.mean(beyond) == pytest.approx(0.01, abs=0.003)


def test_it_is_the_mahalanobis_distance_from_the_nearest_class():
    reference, random = fitted()
    features, _ = drawn(random, 20)
    precision = reference.directions.astype(float) / reference.variances @ reference.directions.T.astype(float)
    centred = [features / reference.scale - mean for mean in reference.means]
    squares = [np.einsum("bi,ij,bj->b", each, precision, each) for each in centred]
    np.testing.assert_allclose(reference.distance(features), np.sqrt(np.min(squares, axis=0) / 12), rtol=1e-3)


def test_a_direction_in_which_training_never_varied_counts_for_more_than_one_in_which_it_did():
    reference, random = fitted()
    features, _ = drawn(random, 1)
    narrow, wide = reference.directions[:, -1] * reference.scale, reference.directions[:, 0] * reference.scale
    assert reference.distance(features + 3 * narrow)[0] > reference.limit.distance
    assert reference.distance(features + 3 * wide)[0] < reference.distance(features + 3 * narrow)[0]


def test_with_fewer_directions_the_others_share_one_variance(monkeypatch):
    whole, random = fitted()
    monkeypatch.setattr(feature_distance, "DIRECTIONS", 6)
    few, _ = fitted()
    assert few.directions.shape == (12, 6) and whole.directions.shape == (12, 12) and whole.rest == 0
    assert few.rest == pytest.approx(np.mean(whole.variances[6:]), rel=1e-5)
    features, _ = drawn(random, 50)
    off = features + 3 * whole.directions[:, -1] * whole.scale
    assert np.median(few.distance(off) / few.distance(features)) > 1.5


def test_a_feature_that_never_changed_in_training_does_not_make_everything_infinitely_far():
    random = np.random.default_rng(0)
    (training, labels), (validation, _) = drawn(random, 300), drawn(random, 200)
    training[:, 3] = validation[:, 3] = 0.5
    reference = FeatureReference.of("s", (training, labels), (validation, np.arange(200)))
    changed = validation.copy()
    changed[:, 3] += 1e-6
    np.testing.assert_allclose(reference.distance(changed), reference.distance(validation), rtol=0.05)
    assert np.isfinite(reference.distance(changed + 100)).all()


def test_a_small_validation_promises_what_so_few_groups_can():
    reference, _ = fitted(validation=40, groups=np.arange(40) // 2)
    assert reference.limit.share == pytest.approx(1 / 21)
    told = reference.limit.remark(9.87654)
    assert told.startswith("unlike the radiographs that this network learned from") and "9.88" in told and "95%" in told
    assert reference.limit.remark(reference.limit.distance) is None


def test_jax_gives_the_same_distances():
    import jax
    import jax.numpy as jnp

    reference, random = fitted()
    features, _ = drawn(random, 20)
    traced = jax.jit(lambda given: reference.distance(given, jnp))(features)
    np.testing.assert_allclose(np.asarray(traced), reference.distance(features), rtol=1e-4)


def test_it_comes_back_from_its_file_to_the_bit_and_a_damaged_one_is_told(tmp_path):
    reference, random = fitted()
    path = tmp_path / "feature_reference.safetensors"
    write_feature_reference(path, reference)
    again, features = read_feature_reference(path), drawn(random, 20)[0]
    assert (again.stage, again.limit, again.images) == (reference.stage, reference.limit, 800)
    np.testing.assert_array_equal(again.distance(features), reference.distance(features))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"feature_reference\.safetensors is damaged .* evaluate the run again"):
        read_feature_reference(path)
