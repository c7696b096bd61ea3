"""The whole path by one command: what it calls, in which order, and where it stops."""

from types import SimpleNamespace

import pytest

from cxr_jax.commands import evaluate, quickstart
from cxr_jax.errors import UserError


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """The commands that are called, in an empty folder; each only keeps a record of it."""
    monkeypatch.chdir(tmp_path)
    made = []

    def take(command):
        return SimpleNamespace(main=lambda arguments: made.append([command, *arguments]))

    monkeypatch.setattr(quickstart.importlib, "import_module", lambda name: take(name.rpartition(".")[2]))

    def judged(options, terminal):
        made.append(["evaluate", *options.runs])
        return SimpleNamespace()

    monkeypatch.setattr(evaluate, "evaluate", judged)
    monkeypatch.setattr(evaluate, "print_evaluation", lambda terminal, evaluation: terminal.say("the results"))
    return made


def test_every_step_in_order(calls, capsys):
    quickstart.main([])
    run = "runs/quickstart-1"
    assert calls == [
        ["phantoms", "runs/phantoms"],
        ["prepare", "runs/phantoms", "--name", "quickstart", "--replace"],
        ["train", "quickstart", "--out", run, "--data.dataset", "quickstart"],
        ["evaluate", run],
        ["explain", run],
    ]
    told = capsys.readouterr().out
    announced = [line.removeprefix("> cxr-jax ") for line in told.splitlines() if line.startswith("> ")]
    assert announced == [" ".join(call) for call in calls]
    assert told.endswith(f"\n\nthe results\nHeat maps: {run}/explanations\n")


def test_earlier_runs_and_phantoms_are_left_alone(calls, tmp_path):
    for name in ("quickstart-1", "quickstart-2", "phantoms"):
        (tmp_path / "there" / name).mkdir(parents=True)
    quickstart.main(["--out", "there"])
    assert [call[0] for call in calls] == ["prepare", "train", "evaluate", "explain"]
    assert calls[2] == ["evaluate", "there/quickstart-3"]


def test_data_of_ones_own(calls, tmp_path):
    (tmp_path / "-my zip").touch()
    quickstart.main(["--", "-my zip"])
    assert calls[0] == ["prepare", "./-my zip", "--name", "quickstart", "--replace"]
    with pytest.raises(UserError, match=r"there is no missing; give a chest_xray folder or zip, or nothing"):
        quickstart.main(["missing"])


@pytest.mark.parametrize(("failing", "never_reached"), [("train", "evaluate"), ("evaluate", "explain")])
def test_the_first_failure_ends_it(failing, never_reached, calls, monkeypatch):
    def fail(*_):
        raise UserError("no")

    if failing == "evaluate":
        monkeypatch.setattr(evaluate, "evaluate", fail)
    else:
        taken = quickstart.importlib.import_module
        monkeypatch.setattr(
            quickstart.importlib,
            "import_module",
            lambda name: SimpleNamespace(main=fail) if name.endswith(failing) else taken(name),
        )
    with pytest.raises(UserError, match="no"):
        quickstart.main([])
    assert never_reached not in [call[0] for call in calls]
