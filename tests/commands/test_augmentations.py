import cv2
import numpy as np
import pytest

from cxr_jax.commands import augmentations
from cxr_jax.config.schema import AugmentationConfig
from cxr_jax.errors import UserError
from cxr_jax.reporting import augmentations as figures


def test_a_configs_training_images_are_drawn(config_file, tmp_path, capsys):
    out = tmp_path / "new" / "figure.png"
    augmentations.main([str(config_file), "--out", str(out)])
    picture = cv2.imread(str(out), cv2.IMREAD_UNCHANGED)
    assert picture.ndim == 2 and picture.min() == 0 and picture.max() == 255
    assert capsys.readouterr().out == f"Drawing {out}\nWritten: {out}\n"


def test_every_change_is_drawn_without_a_config_and_the_seed_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "SHOWN", {"noise": AugmentationConfig(noise=0.1)})
    pictures = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / f"{name}.png"
        augmentations.main(["--out", str(out), "--seed", seed])
        pictures.append(cv2.imread(str(out), cv2.IMREAD_UNCHANGED))
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_figure_is_replaced_only_if_told(config_file, tmp_path):
    out = tmp_path / "figure.png"
    out.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already; choose another name, or replace it by --replace"):
        augmentations.main([str(config_file), "--out", str(out)])
    assert out.read_bytes() == b"mine"
    augmentations.main([str(config_file), "--out", str(out), "--replace"])
    assert out.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a PNG file for the figure"),
        (["--out", "figure.jpg"], "name a PNG file for the figure"),
        (["--out", "figure.png", "--seed", "-1"], "--seed is -1, but must be from 0"),
        (["missing.toml", "--out", "figure.png"], "missing.toml"),
    ],
)
def test_mistakes_are_one_sentence(arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        augmentations.main(arguments)
    assert not list(tmp_path.iterdir())
