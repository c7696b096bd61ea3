"""CheXpert and the tuberculosis sets, stored: data card, proof of the splits and fingerprint."""

import cv2
import numpy as np
import pytest

from cxr_jax.commands import prepare as command
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema"


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Draws an image at a place below a folder, and returns its path."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    random = np.random.default_rng(0)

    def at(folder, place):
        path = tmp_path / folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), random.integers(0, 255, (40, 40)).astype(np.uint8))
        return path

    return at


def test_chexpert(draw, tmp_path, capsys):
    cells = (",1.0,", ",0.0,1.0", ",-1.0,0.0", "1.0,,", ",1.0,1.0", ",,-1.0")
    for split, patients in (("train", range(12)), ("valid", range(12, 16))):
        rows = []
        for patient in patients:
            place = f"{split}/patient{patient:05d}/study1/view1_frontal.jpg"
            draw("CheXpert-v1.0-small", place)
            rows.append(f"CheXpert-v1.0-small/{place},Female,{50 + patient},Frontal,AP,{cells[patient % 6]}")
        (tmp_path / "CheXpert-v1.0-small" / f"{split}.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    command.main([str(tmp_path / "CheXpert-v1.0-small")])
    prepared = PreparedData.open("chexpert")
    card = prepared.card
    assert (prepared.kind, prepared.classes) == ("findings", ("Cardiomegaly", "Edema"))
    assert card["counts"] == {"train": {"Cardiomegaly": 4, "Edema": 4}, "test": {"Cardiomegaly": 1, "Edema": 1}}
    assert card["unknown"]["train"] == {"Cardiomegaly": 2, "Edema": 2}
    assert card["groups"]["total"] == card["groups"]["named"] == 16
    assert card["proof"]["holds"]
    assert card["known"]["train"]["sex"] == {"F": 12}
    assert len(prepared.fingerprint) == 64
    assert "Proof: no group and no identical file is in two splits." in capsys.readouterr().out
    with pytest.raises(UserError, match="was prepared from"):
        command.main([str(tmp_path / "CheXpert-v1.0-small"), "--uncertain", "present"])
    command.main([str(tmp_path / "CheXpert-v1.0-small"), "--uncertain", "present", "--replace"])
    other = PreparedData.open("chexpert")
    assert other.card["counts"]["train"] == {"Cardiomegaly": 6, "Edema": 6}
    assert other.fingerprint != prepared.fingerprint


@pytest.mark.parametrize(("prefix", "name"), [("CHNCXR", "shenzhen"), ("MCUCXR", "montgomery")])
def test_tuberculosis(draw, tmp_path, capsys, prefix, name):
    for number in range(20):
        path = draw("set", f"CXR_png/{prefix}_{number:04d}_{number % 2}.png")
        text = tmp_path / "set" / "ClinicalReadings" / f"{path.stem}.txt"
        text.parent.mkdir(exist_ok=True)
        text.write_text("female 30yrs\nnormal" if name == "shenzhen" else "Patient's Sex: F\nPatient's Age: 030Y\nx")
    draw("set", f"ManualMask/leftMask/{prefix}_0000_0.png")
    command.main([str(tmp_path / "set")])
    prepared = PreparedData.open(name)
    assert (prepared.kind, prepared.classes) == ("exclusive", ("normal", "tuberculosis"))
    assert prepared.card["images"] == 20
    assert prepared.card["counts"] == {
        "train": {"normal": 8, "tuberculosis": 8},
        "test": {"normal": 2, "tuberculosis": 2},
    }
    assert all((example.label == "tuberculosis") == example.file.endswith("_1.png") for example in prepared.examples)
    assert prepared.card["known"]["train"] == {"set": {name: 16}, "age": {"30": 16}, "sex": {"F": 16}}
    assert prepared.card["proof"]["holds"]
    assert len(prepared.fingerprint) == 64
    assert "masks, not radiographs" in capsys.readouterr().out
