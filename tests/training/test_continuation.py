"""Which runs a network may learn on from, and on which cut of their data."""

import dataclasses
import json

import pytest

from cxr_jax.config.schema import Config, DataConfig
from cxr_jax.errors import UserError
from cxr_jax.runs.continued import Continued, write_continued
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.continuation import require_same_cuts


def run_on(folder, fingerprint, data, begun_with=None):
    folder.mkdir()
    run = RunFolder(folder)
    run.config.write_text(f"[data]\n{data}\n")
    run.environment.write_text(json.dumps({"data_fingerprint": fingerprint}))
    if begun_with is not None:
        at = f"../{begun_with.path.name}"
        write_continued(run, Continued(at, "net", "last", 1, "s", (0.5,), (0.2,), "", "", "old", "of the old"))
    return run


def test_data_that_an_earlier_run_learned_from_are_cut_as_that_run_cut_them(tmp_path):
    first = run_on(tmp_path / "first", "of the old", 'dataset = "old"\nvalidation_fraction = 0.2')
    second = run_on(tmp_path / "second", "of the new", 'dataset = "new"\nvalidation_fraction = 0.3', first)
    cut = DataConfig("old", validation_fraction=0.2)
    require_same_cuts([second], Config(data=cut), ["of the old"])
    as_the_second = Config(data=dataclasses.replace(cut, validation_fraction=0.3))
    with pytest.raises(UserError, match=rf"{first.path} was trained on the same data .*_fraction = 0.2, and here it"):
        require_same_cuts([second], as_the_second, ["of the old"])
    require_same_cuts([second], as_the_second, ["of others"])


def test_what_has_no_part_in_a_cut_may_differ(tmp_path):
    first = run_on(tmp_path / "first", "f", 'dataset = "old"\nfolds = 7\nsplit_seed = 3\nvalidation = "numbered"')
    require_same_cuts([first], Config(data=DataConfig("old", validation="numbered")), ["f"])
    with pytest.raises(UserError, match=r"data\.validation = numbered, and here it is grouped"):
        require_same_cuts([first], Config(data=DataConfig("old")), ["f"])
