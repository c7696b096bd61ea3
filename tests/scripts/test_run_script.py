"""Scripts tell a person's mistake in one sentence, all of them in one way."""

import ast
import subprocess
import sys

import pytest

from cxr_jax.errors import EXIT_USAGE, UserError, run_script
from tests.scripts.script_module import SCRIPTS


def test_a_mistake_is_one_sentence_under_the_name_of_the_script(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["somewhere/study.py", "folder"])

    def main(arguments):
        raise UserError(f"there is no {arguments[0]}")

    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == EXIT_USAGE == 2
    assert capsys.readouterr().err == "study.py: there is no folder\n"


@pytest.mark.parametrize("code", [None, 0, 1])
def test_the_exit_code_is_what_main_returns(monkeypatch, code):
    monkeypatch.setattr(sys, "argv", ["study.py"])
    with pytest.raises(SystemExit) as end:
        run_script(lambda arguments: code)
    assert (end.value.code or 0) == (code or 0)


def scripts_with_main():
    trees = {path.name: ast.parse(path.read_text()) for path in SCRIPTS.glob("*.py")}
    return {name: tree for name, tree in trees.items() if any(isinstance(node, ast.If) for node in tree.body)}


def test_every_script_runs_by_it():
    found = scripts_with_main()
    assert len(found) > 15
    for name, tree in found.items():
        (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
        assert [ast.unparse(line) for line in guarded.body] == ["run_script(main)"], name


def test_a_script_ends_without_a_traceback(tmp_path):
    command = [sys.executable, str(SCRIPTS / "write_localisation.py"), str(tmp_path)]
    (tmp_path / "findings").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_USAGE
    assert done.stderr.startswith("write_localisation.py: ")
    assert done.stderr.count("\n") == 1
