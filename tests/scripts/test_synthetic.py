"""The page of the study of synthetic normals says what its records say; the sweep is the one that is registered."""

import csv
import dataclasses
import re
import shutil
from pathlib import Path

import pytest

from cxr_jax.config.loading import load_config
from cxr_jax.config.overrides import values_of
from cxr_jax.errors import UserError
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.kernel_distance import KernelDistance
from cxr_jax.evaluation.memorisation import Memorisation
from cxr_jax.evaluation.samples import SCHEMA_VERSION, JudgedSamples, Likeness, verdict_of
from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import fields_to_json
from cxr_jax.sweeps.sweep import read_sweep
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]
STUDY = (ROOT / "docs/registered/synthetic.md").read_text()

NEAR = Memorisation(median=9.0, median_held_out=8.0, limit=5.0, share=0.04, low=0.02, high=0.06, copies=False)
JUDGED = JudgedSamples(
    samples=2287,
    training_images=1207,
    held_out_images=134,
    image_size=64,
    network="mobilenetv2_100",
    pretrained=True,
    scales=3,
    distance=KernelDistance(0.5, 0.01, 12, (2287, 1207)),
    distance_of_halves=KernelDistance(0.001, 0.01, 6, (603, 604)),
    samples_alike=Likeness(0.3, 0.01, 500),
    real_alike=Likeness(0.3, 0.01, 500),
    in_pixels=NEAR,
    in_features=NEAR,
)


@pytest.fixture(scope="module")
def script():
    return module_of("write_synthetic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Published runs of other recipes, laid out as those of the study, and the judgement of one generator."""
    root = tmp_path_factory.mktemp("synthetic")
    leave = shutil.ignore_patterns("figures", "*.md", "sweep*", "seed2", "seed3", "seed4")
    for name, arm in (
        ("moderate_crops", "oversampling"),
        ("flips", "dcgan_64"),
        ("lee/mobilenetv2_two_phase", "dcgan_128"),
        ("barnett/transfer_honest", "reduced_64"),
    ):
        shutil.copytree(ROOT / "results" / name, root / "published" / arm, ignore=leave)
    told = {"schema_version": SCHEMA_VERSION, **fields_to_json(dataclasses.replace(JUDGED, verdict=verdict_of(JUDGED)))}
    write_json(root / "generators/dcgan_64/evaluation.json", told)
    (root / "published/README.md").write_text("# Mine\n\nA sentence.\n")
    return root


@pytest.fixture(scope="module")
def study(script, folder):
    return script.read_study(folder / "published", 100)


def test_every_arm_is_a_row_beside_the_repeated_normals(script, folder, capsys):
    published = folder / "published"
    script.main([str(published), str(folder / "generators"), "100"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    rows = {(row["arm"], row["endpoint"]): row for row in csv.DictReader((published / "synthetic.csv").open())}
    reference = rows["oversampling", "specificity@rule"]
    assert reference["difference"] == ""
    for arm in ("dcgan_64", "dcgan_128", "reduced_64"):
        row = rows[arm, "specificity@rule"]
        assert float(row["difference"]) == pytest.approx(float(row["mean"]) - float(reference["mean"]))
    page = " ".join((published / "README.md").read_text().split())
    assert page.startswith("# Mine A sentence.")
    assert "Not measured yet: train as it is, normals repeated (2 of 3 seeds)" in page
    assert "the judgement of the DCGAN of 128 pixels" in page
    assert "DCGAN of 64 pixels, 2,287 samples of 1,207 images: Unlike real images" in page
    assert "Nothing can be concluded yet: repeated ones at 128 pixels is missing." in page
    assert "Not a medical device" in page
    assert not list(published.rglob("*.png"))


def test_a_folder_without_judged_generators_is_told(script, folder, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="holds no generator that was judged"):
        script.copy_judgements(tmp_path / "mistyped", folder / "published")
    (tmp_path / "run" / "evaluation.json").write_text('{"schema_version": 1, "test": {}}')
    with pytest.raises(UserError, match="copy it anew"):
        script.copy_judgements(tmp_path, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_the_conclusion_is_the_registered_one(script, study):
    arms = {arm.name: arm for arm in study.arms}
    arms["reduced_128"] = dataclasses.replace(arms["reduced_64"], name="reduced_128")

    def concluded(price=(-0.1, 0.1), **ends):
        """The conclusion, were these the intervals of specificity; and `price` that of sensitivity."""
        changed = []
        for name, arm in arms.items():
            if name == "oversampling":
                continue
            found = dict(arm.differences)
            for key, interval in (("specificity@rule", ends.get(name, (-0.1, 0.02))), ("sensitivity@rule", price)):
                over = dataclasses.replace(found[key].over_seeds, interval=Interval(*interval, "drawn"))
                found[key] = dataclasses.replace(found[key], over_seeds=over)
            changed.append(dataclasses.replace(arm, differences=found))
        return script.conclusion(dataclasses.replace(study, arms=(arms["oversampling"], *changed)))

    none = concluded()
    assert none.startswith("**No reduction of false positives by synthetic normals was found.**")
    assert "up to +2.0 points" in none
    found = concluded(dcgan_64=(0.01, 0.05))
    assert found.startswith("**Synthetic normals reduce false positives** (DCGAN of 64 pixels).")
    assert "missed pneumonia" not in found and "without detail" not in found
    assert "With the DCGAN of 64 pixels missed pneumonia pays for this" in concluded(
        price=(-0.1, -0.01), dcgan_64=(0.01, 0.05)
    )
    assert "nothing is owed to the DCGAN of 64 pixels" in concluded(dcgan_64=(0.01, 0.05), reduced_64=(0.01, 0.05))
    assert "nothing is owed" not in concluded(dcgan_64=(0.01, 0.05), reduced_128=(0.01, 0.05))


def test_without_the_reference_it_is_one_sentence(script, tmp_path, capsys):
    with pytest.raises(UserError, match="holds no runs of the arm 'oversampling'"):
        script.main([str(tmp_path / "nothing")])


def test_the_sweep_trains_the_registered_arms_and_changes_what_the_table_says(script):
    sweep = read_sweep(ROOT / "configs/sweeps/synthetic.toml")
    table = {
        name: re.findall(r"`(\w+)\.(\w+)`", changed)
        for name, changed in re.findall(r"^\| `(\w+)` \| ([^|]*) \|", STUDY, re.MULTILINE)
    }
    assert [variant.name for variant in sweep.variants] == list(table) == list(script.TITLES)
    assert sweep.seeds == (0, 1, 2)
    base = sweep.variants[0].config
    assert (base.data.balancing, base.data.clarify, base.model.denoiser) == ("none", "none", 0)
    for variant in sweep.variants:
        changed, same = values_of(variant.config), values_of(base)
        differing = {tuple(key.split(".")) for key, value in same.items() if changed[key] != value}
        # 64 is what data.reduced_size is by itself
        assert differing == set(table[variant.name]) - ({("data", "reduced_size")} if "64" in variant.name else set())
    generator = load_config(ROOT / "configs/dcgan_normals.toml")
    assert generator.data.cut() == base.data.cut()
    assert (generator.data.dataset, generator.data.resize) == (base.data.dataset, base.data.resize)
    assert generator.training.seed == 0
    assert f"seed 0, after {generator.training.epochs} epochs" in " ".join(STUDY.split())
    for size in (64, 128):
        (variant,) = (variant for variant in sweep.variants if variant.name == f"dcgan_{size}")
        assert f"--out {variant.config.data.synthetic}\n" in STUDY
