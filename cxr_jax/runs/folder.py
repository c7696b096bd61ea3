"""Where everything of one run stands: the layout of a run folder."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.runs.files import writing

SCHEMA_VERSION = 1
"""Version of the layout and of the JSON files of a run folder; raised when an older reader would misread them."""


def read_json(path: str | Path) -> dict[str, Any]:
    """Returns the object that a JSON file of a run holds.

    Raises:
        UserError: there is no such file, or it is not a JSON object.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged, it is not JSON ({error}): write it anew") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what a run writes there: it holds no JSON object")
    return value


@dataclass(frozen=True)
class RunFolder:
    """The paths inside a run folder; the folder itself may not exist yet."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @classmethod
    def unused(cls, path: str | Path) -> RunFolder:
        """Returns the folder that a finished one may become by its renaming, without making it.

        Raises:
            UserError: something is there already, the place cannot be read, or nothing can be renamed to it: a mounted
                folder, or the one where the process stands.
        """
        run = cls._empty(path)
        with writing(run.path):
            if run.path.is_dir() and (run.path.is_mount() or run.path.samefile(Path.cwd())):
                kind = "a mounted folder" if run.path.is_mount() else "the current folder"
                raise UserError(f"{path} is {kind}, which cannot become the run: name a new folder in it")
        return run

    @classmethod
    def _empty(cls, path: str | Path) -> RunFolder:
        """Returns the folder, which holds nothing or is not there; UserError if something is, or it cannot be read."""
        path = Path(path)
        with writing(path):
            if path.exists() and not path.is_dir():
                raise UserError(f"{path} is a file: choose another place for the run")
            if path.is_dir() and any(path.iterdir()):
                raise UserError(f"{path} exists and is not empty: choose another place for the run, or --resume it")
        return cls(path)

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """Makes the folder of a new run, parents included, and returns it.

        Raises:
            UserError: something is there already (nothing is overwritten), or it cannot be written.
        """
        run = cls._empty(path)
        with writing(run.path):
            run.path.mkdir(parents=True, exist_ok=True)
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Returns the run that lies at `path`.

        Raises:
            UserError: there is no folder, it holds no run, or a newer version of cxr_jax wrote it.
        """
        run = cls(Path(path))
        if not run.path.exists():
            raise UserError(f"there is no run at {path}: no such folder")
        if not run.path.is_dir():
            raise UserError(f"{path} is a file, not the folder of a run")
        if not run.config.is_file():
            raise UserError(f"{path} is not a run: it holds no {run.config.name}")
        version = run.schema_version()
        if version > SCHEMA_VERSION:
            raise UserError(
                f"{path} was written by a newer cxr_jax (schema {version}, this one reads up to {SCHEMA_VERSION}): "
                "update cxr_jax"
            )
        return run

    def schema_version(self) -> int:
        """Returns the version of the layout that environment.json states; that of today if it states none.

        Raises:
            UserError: environment.json cannot be read, or what it states is no version.
        """
        if not self.environment.is_file():
            return SCHEMA_VERSION
        version = read_json(self.environment).get("schema_version", SCHEMA_VERSION)
        if not isinstance(version, int):
            raise UserError(f"{self.environment} is damaged, its schema_version is {version!r}: restore it")
        return version

    def read_config(self) -> dict[str, Any]:
        """Returns config.toml as tables of plain values, unchecked, by whichever version wrote it.

        Raises:
            UserError: it is missing or no TOML.
        """
        try:
            return tomllib.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._no_config(error) from error

    def configured(self, section: str, name: str) -> Any:
        """Returns one value of config.toml.

        Raises:
            UserError: there is no config, or it has no such value.
        """
        try:
            return self.read_config()[section][name]
        except (KeyError, TypeError) as error:
            raise self._no_config(f"no {name} in [{section}]") from error

    def _no_config(self, reason: object) -> UserError:
        return UserError(f"{self.config} is not the config of a run ({reason}): restore it or train again")

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def config(self) -> Path:
        """The resolved configuration, TOML."""
        return self.path / "config.toml"

    @property
    def ensemble(self) -> Path:
        """Members of an ensemble, JSON; a run that was trained has none."""
        return self.path / "ensemble.json"

    @property
    def continued(self) -> Path:
        """From which run this one learns on, JSON; a run that began anew has none."""
        return self.path / "continued.json"

    @property
    def environment(self) -> Path:
        """Versions, machine, commit, fingerprint of the data, JSON."""
        return self.path / "environment.json"

    @property
    def data_card(self) -> Path:
        """What the prepared data held when the run began, JSON."""
        return self.path / "data_card.json"

    @property
    def network(self) -> Path:
        """Which network the run trains and the image statistics that it expects, JSON."""
        return self.path / "network.json"

    @property
    def probe(self) -> Path:
        """How the classifier of a probe was fitted, JSON; a run that was trained has none."""
        return self.path / "probe.json"

    @property
    def metrics(self) -> Path:
        """What training measured, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Folder of the best and the last state."""
        return self.path / "checkpoints"

    @property
    def predictions(self) -> Path:
        """Folder of the predictions tables."""
        return self.path / "predictions"

    def predictions_of(self, split: str) -> Path:
        """Returns the predictions table of one split, CSV."""
        return self.predictions / f"{split}.csv"

    @property
    def operating_point(self) -> Path:
        """The threshold, fixed on validation before any test prediction exists, JSON."""
        return self.path / "operating_point.json"

    @property
    def conformal(self) -> Path:
        """From which probability on a class is possible, fixed on validation as the threshold is, JSON."""
        return self.path / "conformal.json"

    @property
    def uncertainty(self) -> Path:
        """What the sets of possible classes are worth on test, JSON."""
        return self.path / "uncertainty.json"

    @property
    def evaluation(self) -> Path:
        """The judgement of the predictions, JSON."""
        return self.path / "evaluation.json"

    @property
    def quality(self) -> Path:
        """Image quality of the splits, its relation to errors, and the baselines without a network, JSON."""
        return self.path / "quality.json"

    @property
    def quality_reference(self) -> Path:
        """What the training images look like, their mean picture included: not to be published; JSON."""
        return self.path / "quality_reference.json"

    def robustness_of(self, split: str) -> Path:
        """Returns what is left of the run's calls on degraded images of one split, JSON."""
        return self.path / f"robustness_{split}.json"

    def occlusion_of(self, split: str) -> Path:
        """Returns what is left of the run's calls where a region of the images of one split is shown alone, JSON."""
        return self.path / f"occlusion_{split}.json"

    @property
    def change(self) -> Path:
        """Folder of what a run that learned on gained and forgot."""
        return self.path / "change"

    @property
    def external(self) -> Path:
        """Folder of what the run is worth on films of other sources, one folder each."""
        return self.path / "external"

    @property
    def feature_reference(self) -> Path:
        """The training images in the network's own features, aggregated, safetensors."""
        return self.path / "feature_reference.safetensors"

    @property
    def ledger(self) -> Path:
        """Every look that was taken at the test set, one JSON object a line."""
        return self.path / "ledger.jsonl"

    @property
    def figures(self) -> Path:
        """Folder of figures, PNG and SVG."""
        return self.path / "figures"

    @property
    def explanations(self) -> Path:
        """Folder of Grad-CAM overlays."""
        return self.path / "explanations"

    @property
    def explanation_checks(self) -> Path:
        """What the checks of the Grad-CAM maps found, JSON; there is none before they were made."""
        return self.explanations / "checks.json"

    @property
    def report(self) -> Path:
        """The report, one self-contained HTML file."""
        return self.path / "report.html"
