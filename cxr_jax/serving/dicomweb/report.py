"""What a network made of a radiograph as a Structured Report (DICOM PS3.16, TID 1500)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cxr_jax.serving.dicomweb.network import SOFTWARE, Network, plain
from cxr_jax.serving.dicomweb.source import Source
from cxr_jax.serving.dicomweb.written import Written, description, evidence_of, finish
from cxr_jax.serving.predict import FilePrediction
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, PNEUMONIA

if TYPE_CHECKING:
    from highdicom.sr import ContentItem, MeasurementsAndQualitativeEvaluations

KIND = "report"
SERIES_NUMBER = 9901
SCHEME = "99CXRJAX"
"""Coding scheme of what DICOM has no code for; `99` begins those that are private."""

_POSITIVE = CLASS_NAMES[PNEUMONIA]
_COMMENT = ("121106", "DCM", "Comment")
_NO_UNIT = ("1", "UCUM", "no units")
_YES, _NO = ("373066001", "SCT", "Yes"), ("373067005", "SCT", "No")
_PROCEDURE = ("399208008", "SCT", "Plain X-ray of chest")


def report_of(network: Network, source: Source, prediction: FilePrediction) -> Written:
    """Returns the report of one radiograph.

    It holds the score, the threshold, whether the score reaches it, every warning, whose films the network learned
    from, and the disclaimer, and names the network as what observed. It is preliminary and unverified, and codes no
    finding: nobody has made one.
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
        imaging_measurements=[_measured(network, source, prediction)],
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


def _measured(network: Network, source: Source, prediction: FilePrediction) -> MeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        Measurement,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )

    threshold = network.threshold
    algorithm = AlgorithmIdentification(
        name=f"cxr_jax: {network.title}",
        version=network.version,
        parameters=[
            f"sha256 of network, preprocessing and threshold: {network.digest}",
            plain(f"rule of the threshold: {threshold.rule}", 200),
            f"software: {SOFTWARE}",
        ],
    )
    numbers = (
        ("score", f"Research score for class {_POSITIVE}", prediction.probability),
        ("threshold", "Research threshold of the score", threshold.value),
    )
    reached = _YES if prediction.label == _POSITIVE else _NO
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(network.uid("measurements", source.uid), "cxr_jax research score"),
        algorithm_id=algorithm,
        measurements=[
            Measurement(CodedConcept(code, SCHEME, meaning), round(float(value), 6), CodedConcept(*_NO_UNIT))
            for code, meaning, value in numbers
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(
                CodedConcept("reached", SCHEME, "Research score reaches the threshold"), CodedConcept(*reached)
            )
        ],
        source_images=[SourceImageForMeasurementGroup(source.text("SOPClassUID"), source.uid)],
    )
    group[0].ContentSequence.extend(_text(_COMMENT, sentence) for sentence in remarks(prediction))
    return group


def remarks(prediction: FilePrediction) -> list[str]:
    """Returns what a reader should know before believing the score, in plain characters."""
    told = [plain(f"Warning: {warning}", 1000) for warning in prediction.warnings]
    if prediction.uncertain:
        told.append(f"Uncertain, possible classes: {', '.join(prediction.possible) or 'none'}.")
    return told if prediction.compared else [*told, "The image was not compared with those of training."]


def _text(name: tuple[str, str, str], value: str) -> ContentItem:
    from highdicom.sr import CodedConcept, RelationshipTypeValues, TextContentItem

    return TextContentItem(CodedConcept(*name), value, RelationshipTypeValues.CONTAINS)
