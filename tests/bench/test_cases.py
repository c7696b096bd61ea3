import dataclasses

import pytest

from cxr_jax.bench.cases import Case, Plan

PLAN = Plan(
    models=("a", "b"),
    image_sizes=(32, 64),
    batch_sizes=(2,),
    works=("train", "inference"),
    backends=("jit",),
    threads=(1, 2),
)


def test_every_combination_is_a_contest_once():
    contests = list(PLAN.contests())
    described = [(c.case.model, c.case.image_size, c.case.batch_size, c.case.work, c.case.threads) for c in contests]
    assert len(described) == len(set(described)) == 2 * 2 * 1 * 2 * 2
    assert all(contest.opponents == () for contest in contests)
    assert {contest.case.implementation for contest in contests} == {"cxr_jax"}


def test_opponents_do_the_same_work_on_the_same_cores():
    plan = dataclasses.replace(PLAN, plain=True, against_timm=True, backends=("jit", "pmap"), devices=2)
    for contest in plan.contests():
        assert {opponent.task for opponent in contest.opponents} == {contest.case.task}
        assert {opponent.threads for opponent in contest.opponents} == {contest.case.threads}
        ours = [entry for entry in (contest.case, *contest.opponents) if entry.implementation != "timm"]
        assert {entry.devices for entry in ours} == {2}


def test_pmap_takes_turns_with_jit_in_training_only():
    plan = dataclasses.replace(PLAN, backends=("pmap", "jit"))
    backends = {c.case.work: (c.case.backend, *(entry.backend for entry in c.opponents)) for c in plan.contests()}
    assert backends == {"train": ("pmap", "jit"), "inference": ("jit",)}


def test_precisions_take_turns():
    plan = dataclasses.replace(PLAN, precisions=("float32", "bfloat16"), plain=True)
    for contest in plan.contests():
        entries = [contest.case, *contest.opponents]
        ours = [entry.precision for entry in entries if entry.implementation == "cxr_jax"]
        assert ours == ["float32", "bfloat16"]


@pytest.mark.parametrize(("work", "count"), [("epoch", 8), ("startup", 1)])
def test_whole_works_have_no_opponents(work, count):
    """A start knows neither backend nor precision; an epoch has a case for each."""
    lists = {"models": ("a",), "image_sizes": (32,), "threads": (2,), "batch_sizes": (2, 4) if count > 1 else (2,)}
    both = {"backends": ("jit", "pmap"), "precisions": ("float32", "bfloat16"), "plain": True, "against_timm": True}
    plan = dataclasses.replace(PLAN, works=(work,), dataset="/home/few", steps=3, **lists, **both)
    contests = list(plan.contests())
    assert len({contest.case for contest in contests}) == len(contests) == count
    assert all(contest.opponents == () and contest.case.dataset == "/home/few" for contest in contests)
    assert {contest.case.steps for contest in contests} == ({3} if work == "epoch" else {0})
    assert all("/home" not in contest.case.task and "few" in contest.case.task for contest in contests)


def test_plain_differs_in_the_convolutions_alone():
    for contest in dataclasses.replace(PLAN, plain=True, backends=("pmap",)).contests():
        (plain,) = contest.opponents
        assert plain == dataclasses.replace(contest.case, implementation="plain")


@pytest.mark.parametrize(
    ("options", "modes"),
    [
        ({}, 2),
        ({"torch_compile": True}, 4),
        ({"preload": "/lib/libtcmalloc.so.4"}, 4),
        ({"torch_compile": True, "preload": "/lib/libtcmalloc.so.4"}, 8),
    ],
)
def test_modes_of_pytorch(options, modes):
    plan = dataclasses.replace(PLAN, against_timm=True, **options)
    for contest in plan.contests():
        ways = {opponent.way for opponent in contest.opponents}
        assert len(contest.opponents) == len(ways) == modes
        assert {opponent.precision for opponent in contest.opponents} == {"float32", "bfloat16"}
        assert ("timm, channels_last, eager, bfloat16, libtcmalloc" in ways) == ("preload" in options)
        assert ("timm, channels_last, compile, float32" in ways) == ("torch_compile" in options)


def test_a_case_says_what_it_computes_and_how():
    case = Case("mobilenetv2_100", 224, 32, "train", threads=2, implementation="plain", backend="pmap")
    assert case.task == "mobilenetv2_100, 224 px, batch 32, train"
    assert case.way == "cxr_jax, plain convolutions, pmap, float32"
