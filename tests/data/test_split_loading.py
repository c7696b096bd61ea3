import numpy as np
import pytest

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.quality.table import quality_table
from cxr_jax.data.split_loading import load_split, rows_of_split


@pytest.mark.parametrize("validation", ["grouped", "numbered", "least_sharp"])
def test_a_cut_shares_out_train_and_leaves_test_alone(prepared, validation):
    config = DataConfig(image_size=16, validation=validation, validation_fraction=0.25)
    train, val = load_split(prepared, config, "train"), load_split(prepared, config, "val")
    assert sorted([*train.ids, *val.ids]) == list(range(24))
    assert not set(train.groups) & set(val.groups)
    assert set(val.labels) == {0, 1}
    np.testing.assert_array_equal(
        load_split(prepared, config, "test").ids, load_split(prepared, DataConfig(image_size=16), "test").ids
    )


def test_the_sharpness_is_that_of_the_pictures(prepared):
    config = DataConfig(image_size=16, validation="least_sharp", validation_fraction=0.25)
    cut = rows_of_split(prepared, config, "val")
    sharpness = quality_table(prepared).columns["sharpness"]
    normals = [
        row for row, example in enumerate(prepared.examples) if (example.split, example.label) == ("train", "NORMAL")
    ]
    groups = {prepared.examples[row].group for row in normals}
    means = {
        group: np.mean([sharpness[row] for row in normals if prepared.examples[row].group == group]) for group in groups
    }
    chosen = {prepared.examples[row].group for row in cut} & groups
    assert chosen == set(sorted(means, key=means.get)[: len(chosen)])
    assert 0 < len(chosen) < len(groups)


def test_the_lowest_numbers_are_those_of_the_names(prepared):
    config = DataConfig(image_size=16, validation="numbered", validation_fraction=0.25)
    cut = [prepared.examples[row] for row in rows_of_split(prepared, config, "val")]
    rest = [prepared.examples[row] for row in rows_of_split(prepared, config, "train")]

    def numbers(examples, series):
        return [int(example.group.removeprefix(series)) for example in examples if example.group.startswith(series)]

    for series in ("IM-", "NORMAL2-IM-", "bacteria-person"):
        assert max(numbers(cut, series)) < min(numbers(rest, series))
