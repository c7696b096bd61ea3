"""Every command in the sh blocks of the documents runs, in order, on little data; no exception without a reason.

None of them opens a connection.
"""

import contextlib
import importlib
import io
import re
import shlex
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands import GROUPS
from cxr_jax.config.command_line import parse
from cxr_jax.config.loading import load_with_options
from cxr_jax.config.shipped import find_config
from cxr_jax.data.inspection import inspect
from cxr_jax.data.progress import silently
from cxr_jax.data.sources import Source
from cxr_jax.models import registry
from tests.offline import refused_connections
from tests.shared_programs import share_programs
from tests.undrawn import leave_undrawn

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "docs/getting-started.md",
    "README.md",
    "docs/training.md",
    "docs/cross-validation.md",
    "docs/using-a-network.md",
    "docs/synthesis.md",
)
"""In the order in which they are walked; the first makes the runs that the others use."""

EXTENDING = "docs/extending.md"

NOT_RUN = {
    "git clone <this repository>": "fetches",
    "cd cxr_jax": "the folder that the clone would make",
    "./scripts/quickstart": "installs from a registry; tests/scripts/test_scripts.py holds its steps",
    "pip install .": "installs from a registry; see tests/scripts/test_wheel.py",
    "cxr-jax quickstart": "takes the steps of docs/getting-started.md; see tests/scripts/test_wheel.py",
    ". .venv/bin/activate": "the environment that the script would make",
    "cxr-jax prepare --download": "fetches 1.2 GB",
    "cxr-jax train quickstart --data.dataset phantoms_subtypes --out runs/subtypes": "see commands/test_classes.py",
    "cxr-jax evaluate runs/subtypes": "needs the run before",
    "cxr-jax judge runs/subtypes/predictions/test.csv --merge NORMAL=normal PNEUMONIA=bacteria+virus": (
        "see commands/test_merged_classes.py"
    ),
    "cxr-jax evaluate runs/first/seed0 --on others": "see commands/test_on.py",
    "cxr-jax evaluate runs/first/seed0 --on others --test": "see commands/test_on.py",
    "cxr-jax train mobilenetv2_continued --out runs/continued --from runs/mobilenetv2_best": "see test_continue.py",
    "cxr-jax evaluate runs/continued": "see test_continue.py",
    "cxr-jax train mobilenetv2_continued --out runs/averaged --from runs/mobilenetv2_best --average-with runs/continued"
    " --optimizer.learning-rate 0 --training.epochs 20": "see test_continue.py",
    "cxr-jax port mobilenetv2_100 mobilenetv2_100.imagenet.safetensors": "fetches; see tests/porting/test_hub.py",
    "cxr-jax port tf_efficientnetv2_s.in21k_ft_in1k tf_efficientnetv2_s.safetensors": "fetches",
    "cxr-jax train mobilenetv2_best": "needs the real radiographs and weights",
    "cxr-jax evaluate runs/mobilenetv2_best": "needs the run before",
    "cxr-jax train efficientnetv2_s_lee --out runs/lee": "needs the real radiographs, weights and a GPU",
    "cxr-jax bench --models mobilenetv2_tiny --plain": "measures for a minute; see tests/bench",
    "scripts/launch_local 2 --devices 2 -- train quickstart --out runs/two": "see test_train_processes.py",
    "srun --ntasks=8 cxr-jax train CONFIG --out RUN": "needs SLURM",
    "cxr-jax train CONFIG --out RUN --parallel.coordinator HOST:PORT --parallel.world-size N --parallel.rank I": (
        "needs several machines"
    ),
    "cxr-jax evaluate runs/mine/seed0 runs/mine/seed1 runs/mine/seed2 --out runs/mine_together": "see test_ensemble.py",
    "cxr-jax evaluate runs/mine_together": "see test_ensemble.py",
    "cxr-jax crossval CONFIG --folds 5 --out runs/folds": "see test_crossval.py",
    "cxr-jax evaluate runs/folds/ensemble": "see test_crossval.py",
    "cxr-jax page bundle page": "needs packages of npm; see tests/page",
    "pip install 'cxr-jax[serve]'": "installs from a registry",
    "cxr-jax serve bundle": "runs until it is stopped; see test_serve.py",
    "pip install 'cxr-jax[pacs]'": "installs from a registry",
    "cxr-jax export runs/mine bundle": "see test_export.py",
    "cxr-jax pacs bundle --dicomweb https://pacs.example/dicom-web --user cxr --password-file password.txt": (
        "needs a picture archive; see tests/serving/dicomweb"
    ),
    "cxr-jax synthesize dcgan_normals --out runs/dcgan_64": "see commands/test_synthesize.py",
    "cxr-jax synthesize dcgan_normals --data.image-size 128 --synthesis.channels 16 --training.batch-size 32 "
    "--synthesis.label-smoothing 0.1 --training.epochs 100 --out runs/dcgan_128": "needs the real radiographs",
    "cxr-jax sweep sharpness --out runs/study": "needs the real radiographs and weights",
    "cxr-jax sweep sharpness --out runs/study --only base blur --seeds 0": "needs the real radiographs and weights",
}
"""Why a line is not run; what it asks of cxr-jax must be understood all the same."""

SMALLER = {
    "phantoms": ["--count", "72", "--smallest", "64", "--largest", "80"],
    "train": [
        *("--data.image-size", "32", "--training.epochs", "1", "--training.batch-size", "16"),
        *("--schedule.warmup-iterations", "1"),
    ],
    "probe": ["--data.image-size", "32", "--probe.folds", "2", "--probe.strengths", "100"],
    "explain --check": ["--images", "4"],
}
"""Options that make a command quick, and change nothing but sizes."""

PLACEHOLDERS = {"CONFIG": "quickstart", "RUN": "runs/new", "HOST:PORT": "localhost:1234", "N": "2", "I": "0"}


def lines_of(document):
    """The commands of a document's sh blocks, one a line."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


def run_by_documents():
    """The names of the commands that the documents run without an option that leaves their work out."""
    lines = [shlex.split(line) for document in DOCUMENTS for line in lines_of(document) if line not in NOT_RUN]
    return {words[1] for words in lines if words[0] == "cxr-jax" and "--list" not in words}


def understand(line):
    """Parses the options of the `cxr-jax` command in `line`; UserError or SystemExit if they are not valid."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)]
    if "cxr-jax" in words:
        words = words[words.index("cxr-jax") + 1 :]
    elif "--" in words:
        words = words[words.index("--") + 1 :]
    else:
        return
    name, *arguments = words
    module = importlib.import_module(f"cxr_jax.commands.{name}")
    if name in ("train", "probe", "crossval", "synthesize"):
        load_with_options(find_config(arguments[0]), arguments[1:], module.Options, prog=f"cxr-jax {name}")
    else:
        parse(module.Options, arguments, prog=f"cxr-jax {name}")


def smaller(line):
    """The arguments of a documented command, with those that make it quick."""
    arguments = shlex.split(line)[1:]
    extra = SMALLER.get("explain --check" if arguments[0] == "explain" and "--check" in arguments else arguments[0])
    return arguments + (extra or [])


def stand_in(line, folder):
    """Makes what a line that is not run would have made, as far as later lines need it."""
    if line == "./scripts/quickstart":
        shutil.copytree(folder / "runs" / "first" / "seed0", folder / "runs" / "quickstart-1")
        films = sorted((folder / "drawn" / "test").rglob("*.jpeg"))[:3]
        (folder / "folder_of_films").mkdir()
        for film in films:
            shutil.copy(film, folder / "folder_of_films")
        shutil.copy(films[0], folder / "film.png")


@contextlib.contextmanager
def as_users_run_it():
    """Types and ranks are promoted as outside of the tests."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Runs all documents in one folder; returns the folder, the lines that ran, and what they printed."""
    folder, ran, printed = tmp_path_factory.mktemp("walk"), [], {}
    site = tmp_path_factory.mktemp("offline") / "site"
    with pytest.MonkeyPatch.context() as patch, as_users_run_it(), refused_connections(site) as attempts:
        patch.chdir(folder)
        patch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
        leave_undrawn(patch)
        share_programs(patch)
        for document in DOCUMENTS:
            for line in lines_of(document):
                if line in NOT_RUN:
                    stand_in(line, folder)
                    continue
                out, errors = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                    code = cli(smaller(line))
                assert code == 0, f"{document}: {line}\n{errors.getvalue()}"
                assert not attempts(), f"{document}: {line} reached for the network"
                ran.append(line)
                printed[line] = out.getvalue() + errors.getvalue()
    return folder, ran, printed


@pytest.mark.slow
def test_every_documented_command_runs_in_order_and_leaves_what_is_promised(walked):
    folder, ran, _ = walked
    assert len(ran) > 15
    for made in (
        "runs/first/seed0/report.html",
        "runs/first/seed0/explanations/checks.json",
        "training.png",
        "judged/report.html",
        "predictions.csv",
        "heat_maps",
        "results/mine/README.md",
    ):
        assert (folder / made).exists(), made


def test_every_command_is_shown_once():
    shown = {shlex.split(line)[1] for document in DOCUMENTS for line in lines_of(document) if "cxr-jax" in line[:8]}
    assert shown >= {name for commands in GROUPS.values() for name in commands}


@pytest.mark.parametrize("line", NOT_RUN)
def test_what_is_not_run_is_documented_and_understood(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert any(line in lines_of(document) for document in DOCUMENTS)
    understand(line)


@pytest.mark.slow
def test_every_step_that_a_command_proposes_can_be_taken(walked, monkeypatch):
    folder, _, printed = walked
    monkeypatch.chdir(folder)
    proposed = {
        match.strip()
        for text in printed.values()
        for match in re.findall(r"(?:Next|next step):? (?:.*?, then )?(cxr-jax [^\n;,]+)", text)
    }
    assert len(proposed) >= 3
    for line in proposed:
        understand(line.replace("FOLDER", "folder"))
        for word in shlex.split(line):
            if word.startswith(("runs/", "drawn")):
                assert (folder / word).exists(), line


def test_commands_in_running_text_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(find_config("quickstart").read_text())
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
        for line in re.findall(r"`(cxr-jax [^`]+)`", text):
            line = " ".join(line.split())
            name = line.split()[1]
            assert name == "COMMAND" or any(name in commands for commands in GROUPS.values()), line
            if len(line.split()) > 2 and "--help" not in line and "NAME" not in line:
                understand(line)


@pytest.mark.slow
def test_the_examples_of_how_to_extend_it_work(walked, monkeypatch, tmp_path, capsys):
    folder, _, _ = walked
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
    monkeypatch.setattr(registry, "ARCHITECTURES", dict(registry.ARCHITECTURES))
    text = (ROOT / EXTENDING).read_text()
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        exec(block, names)

    narrow = registry.model_shapes("mobilenetv2_narrow", classes=2)[1]
    assert {"conv_stem.kernel", "blocks.2.1.conv_pw.kernel", "classifier.kernel"} <= narrow.keys()
    with as_users_run_it():
        assert cli(smaller("cxr-jax train quickstart --model.name small_net --out runs/small")) == 0
        assert cli(["explain", "runs/small", "film.png"]) == 0
    assert "conv2" in capsys.readouterr().out

    logits, labels = np.array([[2.0, -1.0], [0.5, 0.5]], np.float32), np.array([0, 1])
    right = np.exp([2.0, 0.5]) / np.exp(logits).sum(1)
    expected = -np.log(right) + 0.5 * (1 - right)
    np.testing.assert_allclose(names["poly_cross_entropies"](logits, labels, 0.5), expected, rtol=1e-5)
    image = np.arange(256, dtype=np.float32).reshape(16, 16)
    assert float(names["solarise"](image, 128.0).max()) == 128
    darker = np.asarray(names["vignette"](image, np.float32(0.5)))
    assert darker[15, 15] == image[15, 15] / 2 and (darker <= image).all()

    film = Path("film.png").read_bytes()
    (tmp_path / "a.jpeg").write_bytes(film)
    (tmp_path / "table.csv").write_text("file,label\na.jpeg,PNEUMONIA\n")
    source = names["TableSource"](tmp_path / "table.csv")
    assert isinstance(source, Source)
    with source.opened() as reader:
        (example,) = inspect(reader, source.listing.entries, silently).examples
    assert (example.label, example.file) == ("PNEUMONIA", "PNEUMONIA/a.jpeg")


def test_links_between_documents_lead_somewhere():
    for document in (*DOCUMENTS, EXTENDING):
        for link in re.findall(r"\]\(([^)#]+)?(#[^)]*)?\)", (ROOT / document).read_text()):
            path, anchor = link
            target = (ROOT / document).parent / path if path else ROOT / document
            assert target.exists(), f"{document}: {path}"
            if anchor and target.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", target.read_text(), flags=re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor[1:] in slugs, f"{document}: {path}{anchor}"
