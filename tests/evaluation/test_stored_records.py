"""The records of earlier versions, as results keep them, are read whole."""

import json
from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.comparison_record import read_comparison, write_comparison
from cxr_jax.evaluation.judgement import judges_other_classes, read_judgement, write_judgement
from cxr_jax.evaluation.quality import read_quality, write_quality

RESULTS = Path(__file__).parents[2] / "results"


def assert_kept(kept, again, where):
    """Everything is there as it was; what the version of the file did not know is null."""
    if isinstance(kept, dict):
        assert {name: again[name] for name in again.keys() - kept.keys()} == dict.fromkeys(again.keys() - kept.keys())
        for name, value in kept.items():
            if name != "schema_version":
                assert_kept(value, again[name], f"{where}/{name}")
    elif isinstance(kept, list):
        assert len(kept) == len(again), where
        for index, pair in enumerate(zip(kept, again, strict=True)):
            assert_kept(*pair, f"{where}/{index}")
    else:
        assert kept == again, where


def read_any_judgement(path):
    return (read_class_judgement if judges_other_classes(path) else read_judgement)(path)


@pytest.mark.parametrize(
    ("name", "read", "write"),
    [("evaluation.json", read_any_judgement, write_judgement), ("quality.json", read_quality, write_quality)],
)
def test_stored_files_read_and_write_back_as_they_are(tmp_path, name, read, write):
    paths = sorted(RESULTS.rglob(name))
    if not paths:
        pytest.skip("no results are kept here")
    for path in paths:
        write(tmp_path / name, read(path))
        kept, again = (json.loads(file.read_text()) for file in (path, tmp_path / name))
        assert_kept(kept, again, path)


def test_the_stored_comparison_reads_and_writes_back_as_it_is(tmp_path):
    path = RESULTS / "comparison" / "comparison.json"
    if not path.is_file():
        pytest.skip("no results are kept here")
    write_comparison(tmp_path / path.name, read_comparison(path))
    assert json.loads((tmp_path / path.name).read_text()) == json.loads(path.read_text())


@pytest.mark.parametrize(("name", "read"), [("evaluation.json", read_judgement), ("quality.json", read_quality)])
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema_version": 99}', "another version"),
        ('{"schema_version": 1}', "is damaged .* has no .*evaluate the run again"),
        ("[]", "no JSON object"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, name, read, text, sentence):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read(path)
