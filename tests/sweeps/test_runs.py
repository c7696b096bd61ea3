import dataclasses

import pytest

from cxr_jax.config.loading import load_config, write_config
from cxr_jax.config.schema import ScheduleConfig
from cxr_jax.errors import UserError
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.sweeps.runs import chosen, sweep_runs
from cxr_jax.sweeps.sweep import read_sweep

SWEEP = """
config = "base.toml"
seeds = [0, 3]
[variants.gamma]
"phases.b.augmentation.gamma" = {gamma}
"""


@pytest.fixture
def sweep(tmp_path):
    """Reads a sweep of two variants and two seeds, the gamma of one of them as given."""
    (tmp_path / "base.toml").write_text("[[phases]]\nname = 'a'\n[[phases]]\nname = 'b'\n")

    def read(gamma: float = 0.3):
        (tmp_path / "s.toml").write_text(SWEEP.format(gamma=gamma))
        return read_sweep(tmp_path / "s.toml")

    return read


def begin(run, reason: str | None = None) -> None:
    """Leave what training leaves of a run that has come so far."""
    write_config(dataclasses.replace(run.config, parallel=run.config.parallel.anywhere()), run.run.config)
    with MetricsLog(run.run.metrics) as log:
        log.write("validation", step=1, loss=0.5)
        if reason is not None:
            log.write("end", step=1, reason=reason, seconds=1.0)


def test_runs_of_other_seeds_rates_epochs_and_folds_share_a_program(sweep, tmp_path):
    first, second, *others = sweep_runs(sweep(), tmp_path)
    assert first.program == others[0].program != second.program
    config = first.config
    changed = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, fold=1),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=0.3),
        schedule=ScheduleConfig("cosine"),
        phases=tuple(dataclasses.replace(phase, epochs=9, schedule=ScheduleConfig()) for phase in config.phases),
    )
    assert dataclasses.replace(first, config=changed).program == first.program
    faster = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, momentum=0.5))
    assert dataclasses.replace(first, config=faster).program != first.program
    assert not first.has_compiled()
    begin(first)
    assert not first.has_compiled()
    for phase, known in (("a", False), ("b", True)):
        with MetricsLog(first.run.metrics) as log:
            log.write("train", step=2, loss=0.5, phase=phase)
        assert first.has_compiled() is known


def test_every_seed_of_every_variant_has_its_place(sweep, tmp_path):
    runs = sweep_runs(sweep(), tmp_path / "out")
    assert [run.name for run in runs] == ["base seed0", "gamma seed0", "base seed3", "gamma seed3"]
    last = runs[-1]
    assert last.run.path == tmp_path / "out" / "gamma" / "seed3"
    assert (last.config_file.name, last.log.name) == ("seed3.toml", "seed3.log")
    assert last.config_file.parent == last.log.parent == tmp_path / "out" / "gamma"
    assert (last.config.training.seed, last.config.phases[1].augmentation.gamma) == (3, 0.3)
    assert not (tmp_path / "out").exists()


def test_the_config_is_written_whole_and_not_touched_again(sweep, tmp_path):
    run = sweep_runs(sweep(), tmp_path / "out")[1]
    run.write_config_file()
    assert load_config(run.config_file) == run.config
    before = run.config_file.stat().st_mtime_ns
    run.write_config_file()
    assert run.config_file.stat().st_mtime_ns == before
    run.config_file.write_text("")
    run.write_config_file()
    assert load_config(run.config_file) == run.config


def test_how_far_a_run_has_come(sweep, tmp_path):
    runs = sweep_runs(sweep(), tmp_path)
    for run, reason in zip(runs, (None, "terminated", "finished", "patience"), strict=True):
        assert (run.begun, run.finished) == (False, False)
        begin(run, reason)
        assert (run.begun, run.finished) == (True, reason in ("finished", "patience"))


@pytest.mark.parametrize("reason", [None, "finished"])
def test_a_run_that_was_begun_with_another_config_is_refused_by_name(sweep, tmp_path, reason):
    begin(sweep_runs(sweep(), tmp_path)[3], reason)
    assert len(sweep_runs(sweep(), tmp_path)) == 4
    with pytest.raises(UserError) as caught:
        sweep_runs(sweep(0.4), tmp_path)
    assert str(caught.value).startswith(f"gamma of {tmp_path / 's.toml'} has changed: {tmp_path / 'gamma' / 'seed3'} ")
    assert "was begun with phases.b.augmentation.gamma = 0.3, and now it would be 0.4;" in str(caught.value)


def test_a_config_of_another_version_or_another_place_to_compute_is_the_same(sweep, tmp_path):
    run = sweep_runs(sweep(), tmp_path)[0]
    begin(run)
    # an older version wrote fewer fields, in another order
    run.run.config.write_text(
        "[training]\nseed = 0\n[parallel]\ndevices = 3\n[data]\nplacement = 'host'\n"
        "[[phases]]\nname = 'a'\n[[phases]]\nname = 'b'"
    )
    assert len(sweep_runs(sweep(), tmp_path)) == 4


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ("[[phases]]\nname = 'a'", "phases.b.name = nothing, and now it would be b"),
        ("", "phases.a.name = nothing, and now it would be a"),
        (
            "[[phases]]\nname = 'a'\n[phases.optimizer]\n[[phases]]\nname = 'b'",
            "phases.a.optimizer.learning_rate = 0.01, and now it would be nothing",
        ),
        (
            "[[phases]]\nname = 'a'\ntrainable = ['x']\n[[phases]]\nname = 'b'",
            r"phases.a.trainable = \('x',\), and now",
        ),
    ],
)
def test_what_one_config_lacks_is_told_by_its_field(sweep, tmp_path, stored, sentence):
    run = sweep_runs(sweep(), tmp_path)[0]
    begin(run)
    run.run.config.write_text(stored)
    with pytest.raises(UserError, match=f"was begun with {sentence}"):
        sweep_runs(sweep(), tmp_path)


def test_variants_and_seeds_are_chosen_by_name(sweep, tmp_path):
    read = sweep()
    runs = sweep_runs(read, tmp_path)
    assert chosen(runs, read, (), ()) == runs
    assert [run.name for run in chosen(runs, read, ("gamma",), ())] == ["gamma seed0", "gamma seed3"]
    assert [run.name for run in chosen(runs, read, ("base", "gamma"), (3,))] == ["base seed3", "gamma seed3"]
    with pytest.raises(UserError, match="has no variant gama; it has base, gamma"):
        chosen(runs, read, ("gama",), ())
    with pytest.raises(UserError, match="has no seed 1; it has 0, 3"):
        chosen(runs, read, (), (1,))
