"""What a network made of a radiograph as a Structured Report (DICOM PS3.16, TID 1500)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxr_jax.serving.dicomweb.network import SOFTWARE, Network, plain
from cxr_jax.serving.dicomweb.source import Source
from cxr_jax.serving.dicomweb.written import Written, description, evidence_of, finish
from cxr_jax.serving.predict import FilePrediction
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, PNEUMONIA

if TYPE_CHECKING:
    from highdicom.sr import AlgorithmIdentification, ContentItem, MeasurementsAndQualitativeEvaluations

KIND = "report"
SERIES_NUMBER = 9901
SCHEME = "99CXRJAX"
"""Coding scheme of what DICOM has no code for; `99` begins those that are private."""

_COMMENT = ("121106", "DCM", "Comment")
_NO_UNIT = ("1", "UCUM", "no units")
_YES, _NO = ("373066001", "SCT", "Yes"), ("373067005", "SCT", "No")
_PROCEDURE = ("399208008", "SCT", "Plain X-ray of chest")


def report_of(network: Network, source: Source, prediction: FilePrediction) -> Written:
    """Returns the report of one radiograph.

    Of every class or finding it holds the score, the threshold if there is one, and whether that calls it. It holds
    every warning, whose films the network learned from, and the disclaimer, and names the network as what observed. It
    is preliminary and unverified, and codes no finding: nobody has made one.
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import (
        CodedConcept,
        DeviceObserverIdentifyingAttributes,
        EnhancedSR,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        network.uid("device"),
        name=SOFTWARE,
        manufacturer_name="cxr_jax",
        model_name=network.title,
        serial_number=network.version,
    )
    content = MeasurementReport(
        ObservationContext(ObserverContext(codes.DCM.Device, device)),
        procedure_reported=CodedConcept(*_PROCEDURE),
        imaging_measurements=_measured(network, source, prediction),
    )
    # before the numbers: whoever reads from the top meets it first
    last = content[0].ContentSequence.pop()
    told = [sentence for sentence in (DISCLAIMER, network.films) if sentence]
    content[0].ContentSequence.extend([*(_text(_COMMENT, sentence) for sentence in told), last])
    made = EnhancedSR(
        evidence=[evidence_of(source)],
        content=content[0],
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="cxr_jax", responsible_organization="cxr_jax")],
        **description(network, source, KIND, SERIES_NUMBER),
    )
    return finish(made, source)


@dataclass(frozen=True)
class Scored:
    """A class or finding in a report: its score, and whether that calls it."""

    label: str
    score: float
    threshold: float | None  # None where the likeliest class is called
    called: bool


def scored(network: Network, prediction: FilePrediction) -> tuple[Scored, ...]:
    """Returns every class or finding that a report tells; of NORMAL and PNEUMONIA the second."""
    told = prediction.probabilities
    if told is None:
        positive = CLASS_NAMES[PNEUMONIA]
        called = prediction.label == positive
        return (Scored(positive, prediction.probability, network.threshold.value, called),)
    thresholds = network.threshold.of_findings or dict.fromkeys(told)
    return tuple(Scored(name, value, thresholds[name], name in prediction.calls) for name, value in told.items())


def _measured(
    network: Network, source: Source, prediction: FilePrediction
) -> list[MeasurementsAndQualitativeEvaluations]:
    """Returns a group of numbers for every class or finding; what is to be remarked stands in the first."""
    from highdicom.sr import AlgorithmIdentification

    algorithm = AlgorithmIdentification(
        name=f"cxr_jax: {network.title}",
        version=network.version,
        parameters=[
            f"sha256 of network, preprocessing and threshold: {network.digest}",
            plain(f"rule of the threshold: {network.threshold.rule}", 200),
            f"software: {SOFTWARE}",
        ],
    )
    # the codes of the first have no number: they are those of PNEUMONIA, which is alone
    groups = [
        _group(network, source, algorithm, told, str(number) if number > 1 else "")
        for number, told in enumerate(scored(network, prediction), 1)
    ]
    groups[0][0].ContentSequence.extend(_text(_COMMENT, sentence) for sentence in remarks(prediction))
    return groups


def _group(
    network: Network, source: Source, algorithm: AlgorithmIdentification, told: Scored, number: str
) -> MeasurementsAndQualitativeEvaluations:
    """Returns score and threshold of one class, and whether it is called; `number` tells its codes from others'."""
    from highdicom.sr import (
        CodedConcept,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    numbers = [("score", plain(f"Research score for class {told.label}"), told.score)]
    asked, meaning = "highest", "Research score is the highest of all classes"
    if told.threshold is not None:
        numbers.append(("threshold", "Research threshold of the score", told.threshold))
        asked, meaning = "reached", "Research score reaches the threshold"
    tracked = TrackingIdentifier(network.uid(f"measurements{number}", source.uid), "cxr_jax research score")
    answer = CodedConcept(*(_YES if told.called else _NO))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracked,
        algorithm_id=algorithm,
        measurements=[
            Measurement(CodedConcept(f"{code}{number}", SCHEME, text), round(float(value), 6), CodedConcept(*_NO_UNIT))
            for code, text, value in numbers
        ],
        qualitative_evaluations=[QualitativeEvaluation(CodedConcept(f"{asked}{number}", SCHEME, meaning), answer)],
        source_images=[SourceImageForMeasurementGroup(source.text("SOPClassUID"), source.uid)],
    )


def remarks(prediction: FilePrediction) -> list[str]:
    """Returns what a reader should know before believing the score, in plain characters."""
    told = [plain(f"Warning: {warning}", 1000) for warning in prediction.warnings]
    if prediction.uncertain:
        told.append(f"Uncertain, possible classes: {', '.join(prediction.possible) or 'none'}.")
    return told if prediction.compared else [*told, "The image was not compared with those of training."]


def _text(name: tuple[str, str, str], value: str) -> ContentItem:
    from highdicom.sr import CodedConcept, RelationshipTypeValues, TextContentItem

    return TextContentItem(CodedConcept(*name), value, RelationshipTypeValues.CONTAINS)
