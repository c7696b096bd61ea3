import json
import select
import sys

import pytest

from cxr_jax.bench import children
from cxr_jax.bench.cases import Case, Contest, Effort
from cxr_jax.bench.measure import Measurement, run_contest
from cxr_jax.bench.record import describe, shares
from cxr_jax.bench.tables import render
from cxr_jax.commands.bench import Options
from cxr_jax.terminal import Terminal

OURS = Case("net", 32, 8, "train", threads=1)
PLAIN = Case("net", 32, 8, "train", threads=1, implementation="plain")
TIMM = Case("net", 32, 8, "train", threads=1, implementation="timm", backend="eager", precision="bfloat16")
TUNED = Case("net", 32, 8, "train", threads=1, implementation="timm", backend="eager", preload="/lib/libtcmalloc.so.4")
EFFORT = Effort(rounds=4, steps=2, seconds=0.5, limit=100.0)
CEILINGS = {1: {"matmul_float32_flops": 100.0, "matmul_bfloat16_flops": 200.0, "copy_bytes": 50.0}}

# a process that speaks as `worker` does, and whose steps take as long as it is told by the name of its case
STAND_IN = """#!{python} -IS
import json, os, sys, time
sys.stdin.reconfigure(line_buffering=True)
task = json.loads(sys.stdin.readline())
case = task["case"]
name = "tuned" if case["preload"] else case["implementation"]
how = json.load(open("{folder}/how.json")).get(name, "fail")
def reply(message):
    print(json.dumps(message), flush=True)
def note(what):
    open("{folder}/log", "a").write(name + " " + what + "\\n")
if how == "fail":
    reply({{"failure": "out of memory"}})
    sys.exit()
facts = {{"platform": "cpu", "device": "cpu", "devices": 1, "products": "default"}}
facts |= {{"versions": {{"torch": "2"}}, "compile_seconds": None}} if name in ("timm", "tuned") else {{
    "versions": {{"jax": "1"}}, "compile_seconds": 1.5, "flops": 10.0, "bytes_accessed": 20.0}}
note("begins")
reply({{"ready": facts}})
turns = 0
for line in sys.stdin:
    request = json.loads(line)
    turns += 1
    assert request == {{"steps": 2, "seconds": 0.5, "clock": "wall"}}, request
    if how == "hang" or how == "hang later" and turns == 2:
        open("{folder}/hangs", "w").close()
        time.sleep(300)
    if how == "die":
        sys.exit("gone")
    note("turn")
    pace = how if isinstance(how, float) else 0.1
    reply({{"seconds": [pace, 2 * pace, pace]}})
note("ends")
reply({{"peak_memory_bytes": int(pace * 1000), "device_peak_bytes": None}})
"""


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Run a contest among processes whose steps take so long; returns its measurements and what happened.

    Time is up for a process that hangs as soon as it says so, and for no other, however slow the machine is.
    """
    hangs, really = tmp_path / "hangs", select.select

    def waited(read, write, failed, limit):
        while not (ready := really(read, write, failed, 0.05))[0]:
            if limit and hangs.exists():
                hangs.unlink()
                break
        return ready

    monkeypatch.setattr(children.select, "select", waited)
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable, folder=tmp_path))
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))

    def run(opponents, effort=EFFORT, keep=lambda known: None, **how):
        (tmp_path / "how.json").write_text(json.dumps(how))
        (tmp_path / "log").write_text("")
        measurements = run_contest(Contest(OURS, opponents), effort, Terminal(), keep)
        return measurements, (tmp_path / "log").read_text().splitlines()

    return run


def ratios_of(measurements):
    """What the record says of them."""
    return describe(EFFORT, CEILINGS, [measurements])["ratios"]


def test_both_take_turns_and_no_more_than_two_processes_live(stage, capsys):
    """Each is first as often; every round is told as soon as it is done."""
    measurements, log = stage((PLAIN, TIMM), cxr_jax=0.1, plain=0.4, timm=0.05)
    turns = [line.split()[0] for line in log if line.endswith("turn")]
    once = ["cxr_jax", "plain", "plain", "cxr_jax"] * 2
    assert turns == once + [name.replace("plain", "timm") for name in once]
    assert [line for line in log if not line.endswith("turn")] == [
        "cxr_jax begins", "plain begins", "plain ends", "timm begins", "timm ends", "cxr_jax ends",
    ]  # fmt: skip
    ratios = ratios_of(measurements)
    assert [(ratio["opponent"], round(ratio["times_as_fast"], 6), ratio["memory"]) for ratio in ratios] == [
        (PLAIN.way, 4.0, 0.25),
        (TIMM.way, 0.5, 2.0),
    ]
    assert [len(ratio["of_rounds"]) for ratio in ratios] == [EFFORT.rounds] * 2
    assert [len(entry.seconds) for entry in measurements] == [2 * 4 * 3, 4 * 3, 4 * 3]
    printed = capsys.readouterr().out
    assert printed.count("round 4 of 4: 80.0 images/s, the other 20.0 images/s: 4.00 times as fast") == 1
    assert printed.count(" of 4: ") == 8


def test_what_is_known_is_kept_after_every_opponent(stage):
    kept = []

    def keep(known):
        kept.append([len(entry.seconds) for entry in known])
        assert describe(EFFORT, CEILINGS, [known])["ratios"][-1]["times_as_fast"] > 0

    stage((PLAIN, TIMM), keep=keep, cxr_jax=0.1, plain=0.4, timm=0.05)
    assert kept == [[4 * 3, 4 * 3], [2 * 4 * 3, 4 * 3, 4 * 3]]


def test_alone_we_take_our_turns_too(stage, capsys):
    measurements, _ = stage((), cxr_jax=0.1)
    assert [len(entry.seconds) for entry in measurements] == [4 * 3]
    assert ratios_of(measurements) == []
    assert "round 4 of 4: 80.0 images/s\n" in capsys.readouterr().out


def test_a_rival_that_cannot_finish_is_told_and_passed_over(stage, capsys):
    """The others go on; what is known of the machine and of ours stays."""
    limited = Effort(4, 2, 0.5, limit=3.0)
    measurements, log = stage((PLAIN, TIMM, TUNED), limited, cxr_jax=0.1, plain="hang later", timm="die", tuned=0.2)
    errors = ["", "did not finish a turn in 3 s", "the process ended with code 1: gone", ""]
    assert [entry.error for entry in measurements] == errors
    assert [ratio["opponent"] for ratio in ratios_of(measurements)] == [TUNED.way]
    assert log[-1] == "cxr_jax ends"
    printed = capsys.readouterr().out
    assert "cxr_jax, plain convolutions, jit, float32: did not finish a turn in 3 s" in printed
    record = describe(limited, CEILINGS, [measurements])
    assert record["measurements"][1]["error"] == errors[1]
    assert record["asked"]["limit"] == 3.0


def test_ours_is_measured_alone_if_every_opponent_fails(stage):
    measurements, log = stage((PLAIN, TIMM), cxr_jax=0.1)
    assert [entry.error for entry in measurements] == ["", "out of memory", "out of memory"]
    assert len(measurements[0].seconds) == EFFORT.rounds * 3
    assert log[-1] == "cxr_jax ends"


def test_nothing_else_is_measured_if_ours_fails_and_no_opponent_is_blamed(stage):
    measurements, log = stage((PLAIN, TIMM), plain=0.1, timm=0.2)
    assert [(entry.case, entry.error) for entry in measurements] == [(OURS, "out of memory")]
    assert log == []
    measurements, _ = stage((PLAIN, TIMM), cxr_jax="die", plain=0.1, timm=0.2)
    assert [(e.case, e.error) for e in measurements] == [(OURS, "the process ended with code 1: gone")]
    assert ratios_of(measurements) == []


def test_speed_is_that_of_the_median_step_with_its_quartiles():
    measurement = Measurement(OURS, {"flops": 6.0}, [1.0, 2.0, 4.0, 8.0, 16.0])
    assert measurement.images_per_second == 2.0
    assert measurement.middle_half == (1.0, 4.0)
    rates = shares(measurement, {})
    assert (rates["flops_per_second"], rates["bytes_per_second"]) == (1.5, None)
    assert Measurement(OURS, {}, [2.0]).middle_half == (4.0, 4.0)


def test_shares_are_those_of_the_ceilings_on_as_many_cores_in_the_same_precision():
    facts = {"flops": 100.0, "bytes_accessed": 20.0}
    assert shares(Measurement(OURS, facts, [2.0]), {2: {}, **CEILINGS}) == {
        "flops_per_second": 50.0,
        "share_of_matmul": 0.5,
        "bytes_per_second": 10.0,
        "share_of_copy": 0.2,
    }
    half = Case("net", 32, 8, "train", threads=1, precision="bfloat16")
    assert shares(Measurement(half, facts, [2.0]), CEILINGS)["share_of_matmul"] == 0.25
    assert set(shares(Measurement(OURS, {}, [2.0]), CEILINGS).values()) == {None}
    unknown = shares(Measurement(OURS, facts, [2.0]), {})
    assert (unknown["flops_per_second"], unknown["share_of_matmul"], unknown["share_of_copy"]) == (50.0, None, None)


def test_record_and_tables(stage, capsys):
    """Every step is kept, and no folder of the machine; the tables end with the ratios."""
    measurements, _ = stage((PLAIN, TIMM, TUNED), cxr_jax=0.1, timm=0.05, tuned=0.2)
    asked = Options(plain=True, preload="/lib/libtcmalloc.so.4", json="/home/out.json")
    record = json.loads(json.dumps(describe(asked, CEILINGS, [measurements]), allow_nan=False))
    ours, plain, timm, tuned = record["measurements"]
    assert ours["images_per_second"] == pytest.approx(80)
    assert (ours["peak_memory_bytes"], len(ours["seconds"])) == (100, 24)
    assert {"facts": {}, "error": "out of memory"}.items() <= plain.items()
    assert "seconds" not in plain
    assert (timm["case"]["precision"], timm["flops_per_second"]) == ("bfloat16", None)
    assert (record["environment"]["versions"]["torch"], record["environment"]["devices"]) == ("2", ["cpu cpu"])
    assert (record["asked"]["preload"], tuned["case"]["preload"]) == ("libtcmalloc.so.4", "libtcmalloc.so.4")
    assert record["asked"]["json"] == "out.json"
    assert record["ceilings"] == [{"threads": 1, **CEILINGS[1]}]
    assert [entry["times_as_fast"] for entry in record["ratios"]] == [pytest.approx(0.5), pytest.approx(2)]
    capsys.readouterr()
    record["environment"]["machine"] |= {"processor": "Some CPU", "cores": 2}
    Terminal().show(render(record))
    printed = capsys.readouterr().out
    assert printed.startswith("Some CPU, 2 cores")
    assert "cxr_jax, jit, float32: 1 x cpu cpu, jax 1, products default" in printed
    assert "net, 32 px, batch 8, train, cxr_jax, plain convolutions, jit, float32: out of memory" in printed
    best = "net, 32 px, batch 8, train, 1 core: {} times as fast as the best mode of timm, channels_last, eager, {}\n"
    assert best.format("0.50", "bfloat16") in printed
    assert printed.rstrip().endswith(best.format("2.00", "float32, libtcmalloc").strip())
