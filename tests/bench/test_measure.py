import dataclasses
import json

import pytest

from cxr_jax.bench.cases import Case, Contest, Plan
from cxr_jax.bench.measure import Effort, Measurement, Outcome, run_contest
from cxr_jax.bench.record import describe, shares
from cxr_jax.bench.tables import render
from cxr_jax.errors import UserError

OURS = Case("net", 32, 8, "train", threads=2)
PLAIN = Case("net", 32, 8, "train", threads=2, implementation="plain")
TIMM = Case("net", 32, 8, "train", threads=2, implementation="timm", backend="eager", precision="bfloat16")
TUNED = Case("net", 32, 8, "train", threads=2, implementation="timm", backend="eager", preload="/lib/libtcmalloc.so.4")
EFFORT = Effort(warm_up=3, rounds=4, steps=2, seconds=0.5)
CEILINGS = {2: {"matmul_float32_flops": 100.0, "matmul_bfloat16_flops": 200.0, "copy_bytes": 50.0}}
MACHINE = {"processor": "Some CPU", "cores": 2}


class FakeChild:
    """Plays a child whose steps take `pace` seconds; notes in `log` what it was asked."""

    def __init__(self, case, log, pace, dies_in_round=None):
        self.case, self.log, self.pace, self.dies_in_round = case, log, pace, dies_in_round
        self.rounds = 0
        ours = case.implementation != "timm"
        self.facts = {
            "platform": "cpu",
            "device": "cpu",
            "devices": 1,
            "products": "default",
            "versions": {"jax": "1"} if ours else {"torch": "2"},
            "allocator": "default",
            "compile_seconds": 1.5 if ours else None,
            **({"flops": 10.0, "bytes_accessed": 20.0} if ours else {}),
        }

    def ask(self, request):
        self.log.append((self.case, request))
        if "trace" in request:
            return {"traced": request["trace"]}
        assert request == {"steps": EFFORT.steps, "seconds": EFFORT.seconds}
        self.rounds += 1
        if self.rounds == self.dies_in_round:
            raise UserError("the process was killed")
        return {"seconds": [self.pace, 2 * self.pace, self.pace]}

    def finish(self):
        self.log.append((self.case, "finish"))
        return {"peak_memory_bytes": int(self.pace * 1000), "device_peak_bytes": None}

    def __enter__(self):
        self.log.append((self.case, "enter"))
        return self

    def __exit__(self, *_):
        self.log.append((self.case, "exit"))


@pytest.fixture
def stage():
    """Run a contest among fake children with the given paces; returns its outcome and what happened."""

    def run(contest, paces, trace=None, dies_in_round=None):
        log = []

        def start(case, warm_up):
            assert warm_up == EFFORT.warm_up
            if case not in paces:
                raise UserError("out of memory")
            return FakeChild(case, log, paces[case], (dies_in_round or {}).get(case))

        return run_contest(contest, EFFORT, lambda text: None, trace=trace, start=start), log

    return run


def test_both_take_turns_and_each_is_first_as_often(stage):
    _, log = stage(Contest(OURS, (PLAIN,)), {OURS: 0.1, PLAIN: 0.4})
    turns = [case for case, request in log if isinstance(request, dict)]
    assert turns == [OURS, PLAIN, PLAIN, OURS, OURS, PLAIN, PLAIN, OURS]


def test_no_more_than_two_processes_live_at_a_time(stage):
    _, log = stage(Contest(OURS, (PLAIN, TIMM)), {OURS: 0.1, PLAIN: 0.4, TIMM: 0.2})
    moves = [(case, what) for case, what in log if what in ("enter", "exit")]
    assert moves == [
        (OURS, "enter"),
        (PLAIN, "enter"),
        (PLAIN, "exit"),
        (TIMM, "enter"),
        (TIMM, "exit"),
        (OURS, "exit"),
    ]


def test_ratio_is_their_time_over_ours(stage):
    outcome, _ = stage(Contest(OURS, (PLAIN, TIMM)), {OURS: 0.1, PLAIN: 0.4, TIMM: 0.05})
    assert [(ratio.opponent, ratio.value) for ratio in outcome.ratios] == [
        (PLAIN, pytest.approx(4)),
        (TIMM, pytest.approx(0.5)),
    ]
    assert [ratio.memory for ratio in outcome.ratios] == [pytest.approx(0.25), pytest.approx(2)]
    assert [len(ratio.of_rounds) for ratio in outcome.ratios] == [EFFORT.rounds] * 2


def test_steps_of_all_rounds_are_kept(stage):
    outcome, _ = stage(Contest(OURS, (PLAIN, TIMM)), {OURS: 0.1, PLAIN: 0.4, TIMM: 0.05})
    assert [len(entry.seconds) for entry in outcome.measurements] == [2 * 4 * 3, 4 * 3, 4 * 3]
    alone, _ = stage(Contest(OURS), {OURS: 0.1})
    assert [len(entry.seconds) for entry in alone.measurements] == [4 * 3]
    assert alone.ratios == []


def test_a_failing_opponent_leaves_the_others_measured(stage):
    outcome, _ = stage(Contest(OURS, (PLAIN, TIMM)), {OURS: 0.1, TIMM: 0.2})
    assert [entry.error for entry in outcome.measurements] == ["", "out of memory", ""]
    assert [ratio.opponent for ratio in outcome.ratios] == [TIMM]
    outcome, log = stage(Contest(OURS, (PLAIN, TIMM)), {OURS: 0.1, PLAIN: 0.2, TIMM: 0.2}, dies_in_round={PLAIN: 2})
    assert [entry.error for entry in outcome.measurements] == ["", "the process was killed", ""]
    assert (PLAIN, "exit") in log


def test_ours_is_measured_alone_if_every_opponent_fails(stage):
    outcome, log = stage(Contest(OURS, (PLAIN, TIMM)), {OURS: 0.1})
    assert [entry.error for entry in outcome.measurements] == ["", "out of memory", "out of memory"]
    assert len(outcome.measurements[0].seconds) == EFFORT.rounds * 3
    assert log[-2:] == [(OURS, "finish"), (OURS, "exit")]


def test_nothing_else_is_measured_if_ours_fails(stage):
    outcome, log = stage(Contest(OURS, (PLAIN, TIMM)), {PLAIN: 0.1, TIMM: 0.2})
    assert [(entry.case, entry.error) for entry in outcome.measurements] == [(OURS, "out of memory")]
    assert log == []


def test_traces_come_after_the_rounds_and_never_from_pytorch(stage, tmp_path):
    _, log = stage(Contest(OURS, (PLAIN, TIMM)), {OURS: 0.1, PLAIN: 0.4, TIMM: 0.2}, trace=tmp_path)
    traced = [(case, request["trace"]) for case, request in log if "trace" in request]
    assert [case for case, _ in traced] == [PLAIN, OURS]
    assert len({folder for _, folder in traced}) == 2
    assert all(folder.startswith(f"{tmp_path}/net-32px-batch8-train-") for _, folder in traced)
    last_of_ours = [request for case, request in log if case == OURS and isinstance(request, dict)][-1]
    assert "trace" in last_of_ours


def test_speed_is_that_of_the_median_step_with_its_quartiles():
    measurement = Measurement(OURS, {"flops": 6.0}, [1.0, 2.0, 4.0, 8.0, 16.0])
    assert measurement.images_per_second == 2.0
    assert measurement.middle_half == (1.0, 4.0)
    assert measurement.rate_of("flops") == 1.5
    assert measurement.rate_of("bytes_accessed") is None
    assert Measurement(OURS, {}, [2.0]).middle_half == (4.0, 4.0)


def test_shares_are_those_of_the_ceilings_on_as_many_cores():
    measurement = Measurement(OURS, {"flops": 100.0, "bytes_accessed": 20.0}, [2.0])
    assert shares(measurement, {1: {}, **CEILINGS}) == {
        "flops_per_second": 50.0,
        "share_of_matmul": 0.5,
        "bytes_per_second": 10.0,
        "share_of_copy": 0.2,
    }
    assert set(shares(Measurement(OURS, {}, [2.0]), CEILINGS).values()) == {None}
    unknown = shares(measurement, {})
    assert (unknown["flops_per_second"], unknown["share_of_matmul"], unknown["share_of_copy"]) == (50.0, None, None)


def test_operations_are_held_against_the_product_in_their_precision():
    half = dataclasses.replace(OURS, precision="bfloat16")
    facts = {"flops": 100.0}
    assert shares(Measurement(OURS, facts, [2.0]), CEILINGS)["share_of_matmul"] == 0.5
    assert shares(Measurement(half, facts, [2.0]), CEILINGS)["share_of_matmul"] == 0.25


@pytest.fixture
def outcomes(stage):
    paces = {OURS: 0.1, TIMM: 0.05, TUNED: 0.2}
    return [stage(Contest(OURS, (PLAIN, TIMM, TUNED)), paces)[0]]


def test_record_is_json_with_every_step(outcomes):
    library = "/somewhere/lib/libtcmalloc.so.4"
    plan = Plan(("net",), (32,), (8,), ("train",), ("jit",), (2,), plain=True, against_timm=True, preload=library)
    record = json.loads(json.dumps(describe(plan, EFFORT, CEILINGS, outcomes), allow_nan=False))
    ours, plain, timm, _ = record["measurements"]
    assert ours["images_per_second"] == pytest.approx(80)
    assert ours["peak_memory_bytes"] == 100
    assert ours["share_of_copy"] == pytest.approx(20 / 0.1 / 50)
    assert len(ours["seconds"]) == 24
    assert plain == {"case": plain["case"], "facts": {}, "error": "out of memory"}
    assert timm["case"]["precision"] == "bfloat16"
    assert timm["flops_per_second"] is None
    assert record["environment"]["versions"]["torch"] == "2"
    assert record["environment"]["devices"] == ["cpu cpu"]
    assert record["plan"]["preload"] == "libtcmalloc.so.4"
    assert "/" not in record["measurements"][3]["case"]["preload"]
    assert record["ceilings"] == [{"threads": 2, **CEILINGS[2]}]
    assert [entry["times_as_fast"] for entry in record["ratios"]] == [pytest.approx(0.5), pytest.approx(2)]


def printed(renderable) -> str:
    from rich.console import Console

    console = Console(width=400)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def test_tables_show_speed_ratio_failure_and_best_mode(outcomes):
    text = printed(render(outcomes, CEILINGS, MACHINE))
    assert text.startswith("Some CPU, 2 cores")
    assert "cxr_jax, jit, float32: 1 x cpu cpu, jax 1, products default, allocator default" in text
    assert "net, 32 px, batch 8, train, cxr_jax, plain convolutions, jit, float32: out of memory" in text
    assert "0.50 x" in text
    assert "1 core:" not in text
    best = "net, 32 px, batch 8, train, 2 cores: {} times as fast as the best mode of timm, channels_last, eager, {}"
    assert best.format("0.50", "bfloat16") in text
    assert best.format("2.00", "float32, libtcmalloc") in text
    assert "scaling" not in text


def test_tables_of_failures_alone():
    outcome = Outcome([Measurement(OURS, error="out of memory")], [])
    text = printed(render([outcome], {1: CEILINGS[2], 2: CEILINGS[2]}, MACHINE))
    assert "failed" in text
    assert "scaling" not in text


def test_tables_show_the_scaling_over_cores():
    one = Case("net", 32, 8, "train", threads=1)
    facts = FakeChild(OURS, [], 1.0).facts
    measured = [Measurement(OURS, facts, [1.0], 5), Measurement(one, facts, [1.7], 5)]
    outcomes = [Outcome([entry], []) for entry in measured]
    text = printed(render(outcomes, {2: CEILINGS[2], 1: CEILINGS[2]}, MACHINE))
    rows = [line for line in text.splitlines() if line.rstrip().endswith(" x │")]
    assert [row.split("│")[-2].strip() for row in rows] == ["1.00 x", "1.70 x"]
