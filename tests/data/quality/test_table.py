import numpy as np
import pytest

from cxr_jax.data.cache import encoded_images
from cxr_jax.data.decode import decode_grey
from cxr_jax.data.quality import table as quality_table_module
from cxr_jax.data.quality.measures import MEASURES, measure_quality
from cxr_jax.data.quality.table import quality_table, thumbnail


def test_rows_are_the_images_of_the_table_in_its_order(prepared):
    table = quality_table(prepared)
    assert set(table.columns) == set(MEASURES)
    for row, (example, data) in enumerate(zip(prepared.examples, encoded_images(prepared), strict=True)):
        grey = decode_grey(data, name=example.file)
        for name, value in measure_quality(grey).items():
            assert table.columns[name][row] == value
        assert (table.thumbnails[row] == thumbnail(grey)).all()
    chosen = table.rows(np.array([5, 2]))
    assert chosen.columns["mean"].tolist() == table.columns["mean"][[5, 2]].tolist()
    assert (chosen.thumbnails == table.thumbnails[[5, 2]]).all()


def test_images_are_measured_once(prepared, monkeypatch):
    first = quality_table(prepared)
    monkeypatch.setattr(quality_table_module, "measure_quality", None)
    again = quality_table(prepared)
    for name in MEASURES:
        assert (again.columns[name] == first.columns[name]).all()
    assert (again.thumbnails == first.thumbnails).all()


@pytest.mark.parametrize("damage", ["cut", "text", "rows", "names", "nan"])
def test_a_damaged_file_is_made_anew(prepared, damage):
    first = quality_table(prepared)
    (path,) = (prepared.path / "quality").glob("*.npz")
    values, count = np.stack(list(first.columns.values()), axis=1), len(prepared.examples)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("no table")
    elif damage == "rows":
        np.savez(path, values=values[1:], thumbnails=first.thumbnails[1:])
    elif damage == "names":
        np.savez(path, measures=values)
    else:
        np.savez(path, values=np.full((count, len(MEASURES)), np.nan), thumbnails=first.thumbnails)
    for _ in range(2):
        assert (quality_table(prepared).columns["mean"] == first.columns["mean"]).all()
    assert np.load(path)["values"].shape == values.shape


def test_another_definition_is_another_file(prepared, monkeypatch):
    quality_table(prepared)
    monkeypatch.setattr(quality_table_module, "VERSION", 99)
    quality_table(prepared)
    assert len(list((prepared.path / "quality").glob("*.npz"))) == 2
