"""What network.json says of the kind of classes, and that it says so of earlier versions too."""

import json

from cxr_jax.runs.description import NetworkDescription, read_description, write_description
from cxr_jax.runs.folder import RunFolder


def description(kind):
    return NetworkDescription(
        architecture="mobilenetv2_tiny",
        classes=("Effusion", "Mass"),
        image_size=32,
        resize="squash",
        interpolation="area",
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        weights="",
        weights_sha256="",
        parameters=1,
        kind=kind,
    )


def test_the_kind_of_classes_is_kept_and_those_of_earlier_versions_exclude_each_other(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    for kind in ("findings", "exclusive"):
        write_description(run, description(kind))
        assert read_description(run) == description(kind)
    stored = json.loads(run.network.read_text())
    del stored["kind"]
    run.network.write_text(json.dumps(stored))
    assert read_description(run).kind == "exclusive"
