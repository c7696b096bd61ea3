import functools
import json

import pytest

from cxr_jax.bench import children, measure, rivals, worker, works
from cxr_jax.bench.measure import Effort
from cxr_jax.commands import bench
from cxr_jax.errors import EXIT_USAGE, UserError

CEILINGS = {"matmul_float32_flops": 1e11, "matmul_bfloat16_flops": 2e11, "copy_bytes": 1e10}


def options(**changes):
    return bench.Options(**changes)


def test_lists_are_taken_apart(monkeypatch):
    monkeypatch.setattr(worker, "available_cores", lambda: 4)
    plan = bench._plan(options(models="mobilenetv2_tiny, mobilenetv2_100", sizes="32,64", batches="1,2", threads="1,4"))
    assert plan.models == ("mobilenetv2_tiny", "mobilenetv2_100")
    assert (plan.image_sizes, plan.batch_sizes, plan.threads) == ((32, 64), (1, 2), (1, 4))
    assert plan.works == ("train", "inference")
    assert (plan.plain, plan.against_timm, plan.preload) == (False, False, "")
    assert bench._plan(options()).threads == (4,)
    assert bench._plan(options(work="train")).works == ("train",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": "mobilenetv2_tini"}, "did you mean mobilenetv2_tiny"),
        ({"models": "mobilenetv2_tiny,,"}, "--models is .* must be names with commas"),
        ({"sizes": "8"}, "--sizes is '8', but must be whole numbers from 16 to 2048"),
        ({"batches": "0"}, "--batches is '0'"),
        ({"batches": "1.5"}, "--batches is '1.5'"),
        ({"batches": "²"}, "--batches is '²'"),
        ({"threads": "99999"}, "--threads is '99999', but must be whole numbers from 1 to "),
        ({"backends": "jit,tpu"}, "--backends holds tpu; choose among jit and pmap"),
        ({"devices": -1}, "--devices is -1, but must be a number from 0 up"),
        ({"compile": True}, "add --against timm"),
        ({"preload": "x.so"}, "add --against timm"),
        ({"preload": "missing.so", "against": "timm"}, r"there is no file missing\.so to preload"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        bench._plan(options(**changes))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rounds": 0}, "rounds"),
        ({"steps": -1}, "steps"),
        ({"seconds": -0.1}, "seconds"),
        ({"seconds": 1e999}, "seconds"),
    ],
)
def test_effort_has_bounds(changes, name):
    with pytest.raises(UserError, match=f"--{name} is ") as mistake:
        bench._effort(options(**changes))
    assert mistake.value.code == EXIT_USAGE
    assert bench._effort(options(seconds=0, steps=1, rounds=1)) == Effort(2, 1, 1, 0)


def test_a_turn_has_three_steps_unless_it_is_told_otherwise():
    assert (bench._effort(options()).steps, bench._effort(options(steps=5)).steps) == (3, 5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"plain": True}, "--plain needs --work train, inference or both"),
        ({"against": "timm"}, "--against needs --work train"),
        ({"trace": "folder"}, "--trace needs --work train"),
        ({"weights": "w.safetensors"}, "--weights needs --work startup"),
        ({"work": "train", "weights": "w.safetensors"}, "--weights needs --work startup"),
        ({"dataset": "missing"}, "no prepared data called 'missing'"),
        ({"models": "mobilenetv2_tini"}, "did you mean mobilenetv2_tiny"),
        ({"steps": -1}, "--steps is -1"),
        ({"work": "startup", "precisions": "bfloat16"}, "--precisions has no effect with --work startup; leave it out"),
        ({"work": "depthwise", "devices": 2}, "--devices has no effect with --work depthwise; leave it out"),
    ],
)
def test_mistakes_in_works_are_told_before_anything_is_measured(changes, sentence, prepared_phantoms):
    given = options(**({"work": "epoch", "dataset": "phantoms"} | changes))
    with pytest.raises(UserError, match=sentence):
        (bench._plan if given.work == "train" else bench._work_plan)(given)


def test_weights_of_a_start_must_be_there(prepared_phantoms, monkeypatch):
    monkeypatch.delenv("CXR_WEIGHTS_DIR", raising=False)
    with pytest.raises(UserError, match="there is no weights file"):
        bench._work_plan(options(work="startup", dataset="phantoms", weights="missing.safetensors"))


def test_works_are_measured_printed_and_written(monkeypatch, tmp_path, capsys):
    """Ceilings are measured only where floors need them; a case that fails is told at the end."""
    asked = []
    monkeypatch.setattr(children, "ask_ceilings", lambda threads: asked.append(threads) or CEILINGS)
    rows = [{"layer": "8 x 8", "count": 1, "lowering": "grouped", "floor_seconds": 1e-3, "error": "no kernel"}]
    monkeypatch.setattr(works, "ask_depthwise", lambda case, copy_bytes: iter(rows))
    file = tmp_path / "depthwise.json"
    bench.main(["--work", "depthwise", "--models", "mobilenetv2_tiny", "--threads", "1", "--json", str(file)])
    assert asked == [1]
    assert json.loads(file.read_text())["results"][0]["rows"] == rows
    assert "no kernel" in capsys.readouterr().out


def test_a_work_that_fails_is_a_mistake(monkeypatch, prepared_phantoms, tmp_path):
    def fail(*arguments):
        raise UserError("out of memory")

    monkeypatch.setattr(works, "measure_startup", fail)
    file = tmp_path / "start.json"
    arguments = ["--work", "startup", "--models", "mobilenetv2_tiny", "--dataset", "phantoms", "--json", str(file)]
    with pytest.raises(UserError, match=r"^1 measurements failed, first mobilenetv2_tiny, .* out of memory"):
        bench.main(arguments)
    assert json.loads(file.read_text())["results"][0]["error"] == "out of memory"


def test_against_timm_needs_it(monkeypatch, tmp_path):
    library = tmp_path / "lib.so"
    library.touch()

    def require():
        raise UserError("needs torch")

    monkeypatch.setattr(rivals, "require_timm", require)
    with pytest.raises(UserError, match="needs torch"):
        bench._plan(options(against="timm"))
    monkeypatch.setattr(rivals, "require_timm", lambda: None)
    plan = bench._plan(options(against="timm", compile=True, preload=str(library)))
    assert (plan.against_timm, plan.torch_compile, plan.preload) == (True, True, str(library))


def test_cores_cannot_be_chosen_everywhere(monkeypatch):
    monkeypatch.setattr(worker, "available_cores", lambda: 2)
    monkeypatch.delattr("os.sched_setaffinity", raising=False)
    assert bench._plan(options(threads="2")).threads == (2,)
    with pytest.raises(UserError, match="leave --threads out"):
        bench._plan(options(threads="1,2"))


def test_results_of_others_are_kept(tmp_path):
    taken = tmp_path / "taken.json"
    taken.write_text("theirs")
    with pytest.raises(UserError, match=r"taken\.json exists already"):
        bench.main(["--json", str(taken)])
    with pytest.raises(UserError, match=r"taken\.json cannot be written"):
        bench.main(["--json", str(taken / "below" / "file.json")])
    assert taken.read_text() == "theirs"


def test_tiny_networks_end_to_end(monkeypatch, tmp_path, capsys):
    """Two real children take turns; one case cannot work, and the others are printed and written all the same."""
    monkeypatch.setattr(children, "ask_ceilings", lambda threads: CEILINGS)
    file = tmp_path / "results" / "bench.json"
    arguments = ["--models", "mobilenetv2_tiny", "--sizes", "32", "--batches", "2", "--work", "inference", "--plain"]
    effort = ["--threads", "1", "--rounds", "2", "--steps", "2", "--seconds", "0"]
    bench.main([*arguments, *effort, "--json", str(file), "--trace", str(tmp_path / "traces")])
    record = json.loads(file.read_text())
    ours, plain = record["measurements"]
    assert (ours["case"]["implementation"], plain["case"]["implementation"]) == ("cxr_jax", "plain")
    assert len(ours["seconds"]) == len(plain["seconds"]) == 4
    assert ours["share_of_matmul"] == pytest.approx(ours["flops_per_second"] / 1e11)
    assert ours["facts"]["cores"] == 1
    (ratio,) = record["ratios"]
    assert len(ratio["of_rounds"]) == 2
    printed = capsys.readouterr().out
    assert "mobilenetv2_tiny, 32 px, batch 2, inference" in printed
    assert f"{ratio['times_as_fast']:.2f} x" in printed
    assert len(list((tmp_path / "traces").rglob("*.xplane.pb"))) == 2


def test_failures_come_last_and_as_a_mistake(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(children, "ask_ceilings", lambda threads: CEILINGS)

    def start(case, warm_up):
        raise UserError("out of memory")

    monkeypatch.setattr(measure, "run_contest", functools.partial(measure.run_contest, start=start))
    file = tmp_path / "bench.json"
    with pytest.raises(UserError, match=r"^2 measurements failed, first mobilenetv2_tiny, 224 px, batch 32, train, "):
        bench.main(["--models", "mobilenetv2_tiny", "--json", str(file)])
    assert capsys.readouterr().out.count("out of memory") == 2
    assert [entry["error"] for entry in json.loads(file.read_text())["measurements"]] == ["out of memory"] * 2
