"""A network at hand for radiographs: that of a trained run, several together, or an exported one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_jax.bundle.record import is_bundle
from cxr_jax.data.quality.reference import QualityReference, read_reference
from cxr_jax.errors import UserError
from cxr_jax.runs.description import require_whole_images
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.trained_on import told_films
from cxr_jax.serving.predict import Predictor

if TYPE_CHECKING:
    from cxr_jax.serving.maps import Explain


@dataclass(frozen=True)
class Loaded:
    """A network with what is told beside its predictions."""

    model: Predictor
    reference: QualityReference | None  # what the training images looked like; None if the run was not evaluated
    name: str  # architecture and origin, for people
    explainer: Callable[[], tuple[Explain, str]]  # see `explain`
    films: str = ""  # whose films it learned from, in a sentence; empty where nobody said

    @cached_property
    def explain(self) -> tuple[Explain, str]:
        """How heat maps are made, and from where in the network.

        Raises:
            UserError: it is the ensemble of several runs, of which there are none; or it has no stages.
        """
        return self.explainer()


def load(place: str | Path, *, int8: bool = False) -> Loaded:
    """Returns the network in a folder; an exported one is loaded without jax, and with `int8` the one in 8 bits.

    Raises:
        UserError: the folder is neither a run nor a bundle, or the network in it cannot be restored, or needs lung
            masks; or `int8` is asked of a run, or of a bundle that has no network in 8 bits.
    """
    if int8 and not is_bundle(place):
        raise UserError(f"--int8 is for an exported network, and {place} is a run: cxr-jax export writes one")
    loaded = _load_bundle(place, int8=int8) if is_bundle(place) else _load_run(RunFolder.open(place))
    require_whole_images(loaded.model.descriptions, "cxr-jax predict, like serve and cxr_jax.load of Python,")
    return loaded


def _load_bundle(place: str | Path, *, int8: bool) -> Loaded:
    from cxr_jax.bundle.runtime import load_bundle
    from cxr_jax.bundle.starter import name_of
    from cxr_jax.serving.maps import evidence_of

    model = load_bundle(place, int8=int8)
    bundle = model.bundle
    return Loaded(model, model.reference, name_of(place, bundle, int8=int8), lambda: evidence_of(model), bundle.films)


def _load_run(run: RunFolder) -> Loaded:
    from cxr_jax.inference.ensemble import Ensemble, restore
    from cxr_jax.inference.restore import restore_run
    from cxr_jax.serving.maps import grad_cam_of

    model = restore(run)
    # a run that was not evaluated has none; the output says so
    reference = read_reference(run.quality_reference) if run.quality_reference.is_file() else None
    name = f"{model.title} of {run.name}{'' if model.step is None else f', step {model.step}'}"

    def explainer() -> tuple[Explain, str]:
        # heat maps are of one network, which `restore_run` says of an ensemble
        return grad_cam_of(restore_run(run) if isinstance(model, Ensemble) else model)

    return Loaded(model, reference, name, explainer, told_films(run))
