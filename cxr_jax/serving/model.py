"""A trained network as a program uses it: predictions on files and arrays, and heat maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from cxr_jax.errors import UserError
from cxr_jax.vocabulary import DISCLAIMER

if TYPE_CHECKING:
    import numpy as np

    from cxr_jax.serving.given import GivenImages
    from cxr_jax.serving.loaded import Loaded
    from cxr_jax.serving.maps import HeatMap
    from cxr_jax.serving.predict import FilePrediction, Threshold

    Image = str | Path | np.ndarray
    """A JPEG, PNG or DICOM file, or grey levels [H, W]: uint8 in 0..255, or uint16 as in a PNG of 16 bits."""


@dataclass(frozen=True)
class Prediction:
    """What a network says of one radiograph."""

    file: str  # its path; `array 1` for the first array that was given, and so on
    probability: float | None  # of PNEUMONIA; of other classes, of the one that is called; None of findings
    label: str  # the call, one of the classes; of findings all that are called, joined by bars, or No Finding
    threshold: float | None  # from which PNEUMONIA is called; None of other classes
    warnings: tuple[str, ...]  # reasons to distrust the prediction; empty for a usual image
    compared: bool  # whether it was compared with the training images, so that no warning means: like them
    uncertain: bool | None = None  # whether another class is possible, or none; None before the run was evaluated
    possible: tuple[str, ...] | None = None  # classes, at the error rate that the network was loaded with
    probabilities: dict[str, float] | None = None  # of every class or finding; None of NORMAL and PNEUMONIA
    findings: tuple[str, ...] | None = None  # those that are called; None of other classes
    films: str = ""  # whose films the network learned from, and what it is for; empty where nobody said
    disclaimer: str = DISCLAIMER


@dataclass(frozen=True)
class Unreadable:
    """An image on which nothing could be predicted, and the sentence that says why."""

    file: str
    error: str


@dataclass(frozen=True)
class Model:
    """A trained network, restored from its run or from its bundle, with the threshold of its calls.

    Made by `cxr_jax.load`.
    """

    _loaded: Loaded
    _threshold: Threshold

    def __repr__(self) -> str:
        return f"<{self.name}; {self._threshold.in_words()}>"

    @property
    def name(self) -> str:
        """What it is, and where it comes from."""
        return self._loaded.name

    @property
    def films(self) -> str:
        """Whose films it learned from, and what it is for, in a sentence; empty where nobody said."""
        return self._loaded.films

    @property
    def threshold(self) -> float | None:
        """The probability from which PNEUMONIA is called; None of other classes."""
        return self._threshold.value

    @property
    def thresholds(self) -> dict[str, float] | None:
        """The probability from which each finding is called; None where the classes exclude each other."""
        found = self._threshold.of_findings
        return None if found is None else dict(found)

    @property
    def threshold_rule(self) -> str:
        """How the threshold came about; it says so where nobody has chosen one."""
        return self._threshold.rule

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self._loaded.model.descriptions[0].classes

    @overload
    def predict(self, images: Image | Iterable[Image]) -> tuple[Prediction, ...]: ...

    @overload
    def predict(
        self, images: Image | Iterable[Image], *, on_error: Literal["keep"]
    ) -> tuple[Prediction | Unreadable, ...]: ...

    def predict(
        self, images: Image | Iterable[Image], *, on_error: Literal["raise", "keep"] = "raise"
    ) -> tuple[Prediction | Unreadable, ...]:
        """Returns one prediction for each image, in the given order; a tuple for a single image, too.

        Files are decoded in threads, and pass through the network in small batches.

            (prediction,) = model.predict("film.png")
            predictions = model.predict("folder_of_films")
            predictions = model.predict(np.zeros((2, 512, 512), np.uint8))

        Args:
            images: a file or a folder, whose images are found in it and in the folders below; grey levels [H, W] of
                one radiograph, or [N, H, W] of N, uint8 in 0..255 or uint16; or several of these.
            on_error: what to do about an image that cannot be read: raise, or keep an `Unreadable` in its place.

        Raises:
            UserError: an image cannot be read, and `on_error` is `raise`; or a folder holds no image.
        """
        from cxr_jax.serving.given import given_images

        if on_error not in ("raise", "keep"):
            raise UserError(f'on_error is {on_error!r}, but must be "raise" or "keep"')
        results = []
        for found in self._predicted(given_images(images)):
            if found.error is None:
                results.append(
                    Prediction(
                        found.file,
                        found.probability,
                        found.label,
                        self.threshold,
                        found.warnings,
                        found.compared,
                        found.uncertain,
                        found.possible,
                        found.probabilities,
                        None if self.thresholds is None else found.findings,
                        self.films,
                    )
                )
            elif on_error == "keep":
                results.append(Unreadable(found.file, found.error))
            else:
                raise UserError(found.error)
        return tuple(results)

    def heat_map(self, image: Image, *, explained: str | None = None) -> HeatMap:
        """Returns where the network saw evidence for a class: Grad-CAM at its last stage.

        The result has `cells` [h, w] and `heat` [H, W], float32 in 0..1, over the network's square and over the
        radiograph. `overlay()` colours the radiograph, `save(path)` writes that with a caption, and a notebook shows
        it. A map is no proof: `cxr-jax explain --check` tests the maps of a run.

        Args:
            image: one file, or grey levels [H, W].
            explained: the class or finding; by default the one that is called, of several findings the likeliest of
                them, and the likeliest of all where none is.

        Raises:
            UserError: the image cannot be read, or is more than one; there is no such class; or the network is an
                ensemble of runs, of which there are no maps.
        """
        from cxr_jax.serving.given import given_images
        from cxr_jax.serving.maps import map_of

        if explained is not None and explained not in self.classes:
            raise UserError(f"there is no class {explained!r}: explain {' or '.join(self.classes)}")
        explain = self._loaded.explain
        given = given_images(image)
        if len(given.names) != 1:
            raise UserError(f"a heat map is of one image, but {len(given.names)} were given: ask for them one by one")
        (found,) = self._predicted(given)
        if found.error is not None:
            raise UserError(found.error)
        resize = self._loaded.model.descriptions[0].resize
        return map_of(explain, found, self._threshold, resize, explained, self.classes, self.films)

    def _predicted(self, given: GivenImages) -> Iterator[FilePrediction]:
        from cxr_jax.serving.predict import predict_files

        return predict_files(
            self._loaded.model,
            given.names,
            self._threshold,
            reference=self._loaded.reference,
            content=given.content,
        )
