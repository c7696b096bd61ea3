import re
from pathlib import Path

import pytest

from cxr_jax.config.loading import load_config
from cxr_jax.config.shipped import find_config, folder, shipped_configs
from cxr_jax.errors import UserError
from cxr_jax.sweeps.sweep import read_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_all_configs_and_sweeps_of_the_checkout_are_shipped_each_name_once():
    paths = sorted(ROOT.glob("configs/**/*.toml"))
    assert sorted(entry.path for entry in shipped_configs().values()) == paths
    assert len({path.stem for path in paths}) == len(paths)
    assert folder() == ROOT / "configs"


def test_each_says_what_it_is_and_what_it_needs():
    for entry in shipped_configs().values():
        assert 20 < len(entry.about()) < 260, entry.name
        # a sentence that "et al." has cut
        assert not entry.about().endswith("et al"), entry.name
        assert entry.command() in (("sweep",) if entry.is_sweep else ("train", "probe", "synthesize")), entry.name
        assert "CPU cores" in entry.hardware() or "GPU" in entry.hardware()
        assert not re.search(r"Command:|Needs:|#|\n", entry.about() + entry.hardware())


@pytest.mark.parametrize("given", ["quickstart", "quickstart.toml"])
def test_a_bare_name_finds_the_shipped_config_from_any_folder(given):
    assert load_config(find_config(given)).model.name == "mobilenetv2_tiny"


def test_a_file_goes_before_the_shipped_config(tmp_path):
    (tmp_path / "quickstart").mkdir()
    assert find_config("quickstart") == ROOT / "configs" / "quickstart.toml"
    (tmp_path / "quickstart.toml").touch()
    assert find_config("quickstart") == Path("quickstart.toml")
    assert find_config(tmp_path / "quickstart") == tmp_path / "quickstart"
    (tmp_path / "mine").touch()
    assert find_config("mine") == Path("mine")


@pytest.mark.parametrize("name", [name for name, entry in shipped_configs().items() if entry.is_sweep])
def test_a_sweep_is_found_by_its_name_and_can_be_copied_alone(name, tmp_path):
    path = find_config(name, sweep=True)
    assert path == ROOT / "configs" / "sweeps" / f"{name}.toml"
    (tmp_path / "mine.toml").write_text(path.read_text())
    copied = read_sweep(tmp_path / "mine.toml")
    assert copied.config.parent == ROOT / "configs"
    assert copied.variants == read_sweep(path).variants


@pytest.mark.parametrize(
    ("given", "sweep", "sentence"),
    [
        ("quikstart", False, "there is no config quikstart; did you mean quickstart?"),
        ("configs/quickstart.toml", False, "; cxr-jax train quickstart takes the one that comes with the program"),
        ("sweeps/sharpness.toml", True, "; cxr-jax sweep sharpness takes the one that comes with the program"),
        ("sharpness", False, "there is no config sharpness; give the path of a TOML file, or a name"),
        ("quickstart", True, "there is no sweep quickstart; "),
        ("mien.toml", False, "did you mean mine.toml?"),
    ],
)
def test_a_missing_config_says_where_configs_are(given, sweep, sentence, tmp_path):
    (tmp_path / "mine.toml").touch()
    with pytest.raises(UserError, match=re.escape(sentence)) as raised:
        find_config(given, sweep=sweep)
    assert str(raised.value).endswith(" (cxr-jax configs lists the names)")
