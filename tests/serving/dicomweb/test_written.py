"""What is stored of a radiograph, read by other programs."""

import io
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

from cxr_jax.bundle.record import Call
from cxr_jax.errors import UserError
from cxr_jax.serving.dicomweb.capture import LARGEST_SIDE, SMALLEST_SIDE, caption, capture_of
from cxr_jax.serving.dicomweb.network import load_network
from cxr_jax.serving.dicomweb.report import report_of
from cxr_jax.serving.dicomweb.source import read_source
from cxr_jax.serving.predict import predict_files
from cxr_jax.vocabulary import DISCLAIMER
from tests.serving.dicomweb.conftest import DX, FILMS, PATIENT, SECRET, write_drawn_bundle
from tests.serving.http.bundles import write_other_bundle

STUDY = "1.2.840.99.7"


def predicted(network, data):
    (prediction,) = predict_files(
        network.model, ["image"], network.threshold, reference=network.model.reference, content=lambda _: data
    )
    return prediction


def written(network, data):
    """Report and picture of a radiograph, as another program reads them, and the prediction."""
    source, prediction = read_source(data, "image"), predicted(network, data)
    report, picture = report_of(network, source, prediction), capture_of(network, source, prediction)
    return pydicom.dcmread(io.BytesIO(report.data)), pydicom.dcmread(io.BytesIO(picture.data)), prediction


def items_of(container):
    """Every item of a report's tree, by what it is called."""
    found = {}
    for item in container.get("ContentSequence", []):
        found.setdefault(item.ConceptNameCodeSequence[0].CodeMeaning, []).append(item)
        for name, inner in items_of(item).items():
            found.setdefault(name, []).extend(inner)
    return found


@pytest.fixture(scope="module")
def stored(network, radiograph):
    return written(network, radiograph(STUDY, 3, BurnedInAnnotation="YES"))


def test_both_belong_to_the_patient_and_the_study(stored, radiograph):
    original = pydicom.dcmread(io.BytesIO(radiograph(STUDY, 3)))
    *objects, _ = stored
    for made in objects:
        for keyword in (*PATIENT, "StudyInstanceUID", "StudyDate", "StudyTime"):
            assert made[keyword].value == original[keyword].value, keyword
        assert made.SeriesInstanceUID != original.SeriesInstanceUID
        assert made.InstanceNumber == 3
    assert len({made.SeriesInstanceUID for made in objects}) == 2


def test_both_are_marked_as_research(stored):
    report, picture, _ = stored
    for made in (report, picture):
        assert made.ContentQualification == "RESEARCH"
        assert made.SeriesDescription.startswith("RESEARCH ONLY, not for diagnosis")
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")
    assert picture.ImageComments == f"{DISCLAIMER} {FILMS}" and DISCLAIMER in picture.DerivationDescription
    assert [item.TextValue for item in items_of(report)["Comment"]][:2] == [DISCLAIMER, FILMS]


def test_the_report_says_what_was_predicted_and_by_what(stored, network):
    report, _, prediction = stored
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    items = items_of(report)
    (score,), (threshold,) = items["Research score for class PNEUMONIA"], items["Research threshold of the score"]
    assert score.MeasuredValueSequence[0].NumericValue == pytest.approx(prediction.probability, abs=1e-6)
    assert threshold.MeasuredValueSequence[0].NumericValue == pytest.approx(0.4)
    (reached,) = items["Research score reaches the threshold"]
    expected = "Yes" if prediction.probability >= 0.4 else "No"
    assert reached.ConceptCodeSequence[0].CodeMeaning == expected
    (observer,) = items["Observer Type"]
    assert observer.ConceptCodeSequence[0].CodeMeaning == "Device"
    assert "drawn-1 (patches)" in items["Algorithm Name"][0].TextValue
    assert items["Algorithm Version"][0].TextValue == network.digest[:12]
    assert any(network.digest in item.TextValue for item in items["Algorithm Parameters"])
    (image,) = items["Source of Measurement"]
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{STUDY}.1.3"
    assert prediction.warnings and any(prediction.warnings[0] in comment.TextValue for comment in items["Comment"])
    assert "Finding" not in items


def test_dcmtk_reads_the_report(stored, network, radiograph, tmp_path):
    if shutil.which("dsrdump") is None:
        pytest.skip("no dsrdump on the path (Debian: apt-get install dcmtk)")
    data = radiograph(STUDY, 3)
    made = report_of(network, read_source(data, "image"), predicted(network, data))
    (tmp_path / "report.dcm").write_bytes(made.data)
    told = subprocess.run(["dsrdump", "+Pl", str(tmp_path / "report.dcm")], capture_output=True, timeout=60, check=True)
    text = told.stdout.decode("latin-1")
    assert not told.stderr and "Enhanced SR Document" in text
    assert DISCLAIMER in text and "Research score for class PNEUMONIA" in text and SECRET in text


def test_the_picture_shows_the_heat_over_the_radiograph(stored):
    _, picture, prediction = stored
    assert picture.BurnedInAnnotation == "YES"
    assert picture.SourceImageSequence[0].ReferencedSOPInstanceUID == f"{STUDY}.1.3"
    shown = picture.pixel_array
    assert shown.dtype == np.uint8 and shown.shape[2] == 3
    height, width = prediction.radiograph.grey.shape
    assert max(shown.shape[1], shown.shape[1] * height / width) == pytest.approx(SMALLEST_SIDE, abs=1)
    colour = np.ptp(shown.astype(int), axis=2)
    # warm somewhere, grey elsewhere, and the bars above and below are black and white
    assert (colour > 60).mean() > 0.02 and (colour == 0).mean() > 0.2
    assert colour[:10].max() == 0 and colour[-60:].max() == 0 and shown[-60:].max() == 255


def test_a_large_radiograph_is_stored_smaller(network, radiograph, phantoms):
    pixels = np.kron(phantoms[0], np.ones((6, 6), np.uint16)).astype(np.uint16) * 16
    rows, columns = pixels.shape
    data = radiograph(STUDY, Rows=rows, Columns=columns, PixelData=pixels.tobytes())
    source = read_source(data, "image")
    picture = pydicom.dcmread(io.BytesIO(capture_of(network, source, predicted(network, data)).data))
    assert max(rows, columns) > LARGEST_SIDE >= picture.Columns


def test_the_caption_names_nobody_and_says_what_it_is(network, radiograph):
    prediction = predicted(network, radiograph(STUDY))
    lines = caption(network, prediction, prediction.label, blank=False)
    assert lines[-2:] == [FILMS, DISCLAIMER] and SECRET not in " ".join(lines)
    assert f"{prediction.probability:.4f}" in lines[0] and "research threshold 0.4000" in lines[0]
    assert "nothing spoke" in caption(network, prediction, prediction.label, blank=True)[1]


@pytest.mark.parametrize(
    "elements",
    [
        {"syntax": ImplicitVRLittleEndian},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Βαγγέλης^Παπαδόπουλος", "StudyDescription": "Θώρακας"},
        {"PatientSex": "X", "PatientBirthDate": "1941.12.07", "StudyTime": "10:15", "PatientName": "a^b^c^d^e^f"},
        dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber")),
        {"PatientName": "", "PatientID": "", "InstanceNumber": "0", "PatientOrientation": None},
        {"PatientID": "P" * 70, "PatientAge": "85Y", "IssuerOfPatientID": "house"},
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_a_header_says_of_the_patient_is_copied_as_it_is(network, radiograph, elements):
    """Wrong values too: an archive sorts by them, and they are nothing to be corrected here."""
    data = radiograph(STUDY, **elements)
    original = pydicom.dcmread(io.BytesIO(data))
    *objects, _ = written(network, data)
    for made in objects:
        for keyword in {*PATIENT, *elements} - {"syntax", "InstanceNumber", "PatientOrientation"}:
            assert made.get(keyword, "") == original.get(keyword, ""), keyword
        assert made.InstanceNumber == 1


def test_identifiers_follow_from_radiograph_and_network(network, radiograph, tmp_path):
    """Whoever makes them anew makes the same; another threshold is another network."""
    first, again = written(network, radiograph(STUDY, 1)), written(network, radiograph(STUDY, 1, chest=1))
    assert [made.SOPInstanceUID for made in first[:2]] == [made.SOPInstanceUID for made in again[:2]]
    other = written(network, radiograph(STUDY, 2))
    assert {made.SOPInstanceUID for made in first[:2]}.isdisjoint(made.SOPInstanceUID for made in other[:2])
    assert [made.SeriesInstanceUID for made in first[:2]] == [made.SeriesInstanceUID for made in other[:2]]
    stricter = written(load_network(write_drawn_bundle(tmp_path, threshold=0.9)), radiograph(STUDY, 1))
    assert {made.SOPInstanceUID for made in first[:2]}.isdisjoint(made.SOPInstanceUID for made in stricter[:2])
    assert all(made.SOPInstanceUID.startswith("2.25.") and len(made.SOPInstanceUID) <= 64 for made in first[:2])


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SOPClassUID"])
def test_a_file_without_identifiers_is_told(radiograph, keyword):
    made = pydicom.dcmread(io.BytesIO(radiograph(STUDY)))
    made.file_meta.MediaStorageSOPClassUID = DX
    del made[keyword]
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=False)
    with pytest.raises(UserError, match="lacks its identifiers") as told:
        read_source(stream.getvalue(), "image")
    assert SECRET not in str(told.value)


OTHERS = ("Effusion", "Mass", "Nodule")


@pytest.mark.parametrize("kind", ["findings", "exclusive"])
def test_every_finding_and_class_is_stated(kind, radiograph, tmp_path):
    calls = (Call("Effusion", 0.6, "youden"), Call("Mass", 0.5, "youden"), Call("Nodule", 0.99, "youden"))
    other = load_network(write_other_bundle(tmp_path / "other", OTHERS, kind, calls))
    report, picture, prediction = written(other, radiograph(STUDY))
    items = items_of(report)
    told = prediction.probabilities
    for name in OTHERS:
        (score,) = items[f"Research score for class {name}"]
        assert score.MeasuredValueSequence[0].NumericValue == pytest.approx(told[name], abs=1e-6)
    asked = "reaches the threshold" if kind == "findings" else "is the highest of all classes"
    answers = [item.ConceptCodeSequence[0].CodeMeaning for item in items[f"Research score {asked}"]]
    assert answers == ["Yes" if name in prediction.calls else "No" for name in OTHERS]
    thresholds = items.get("Research threshold of the score", [])
    stated = [float(item.MeasuredValueSequence[0].NumericValue) for item in thresholds]
    assert stated == ([0.6, 0.5, 0.99] if kind == "findings" else [])
    lines = caption(other, prediction, "Mass", blank=False)
    assert all(f"class {name}: {told[name]:.4f}" in line for name, line in zip(OTHERS, lines, strict=False))
    assert ("research threshold 0.5000 (rule: youden)" in lines[1]) == (kind == "findings")
    assert any("for class Mass, from none" in line for line in lines)
    assert picture.pixel_array.shape[2] == 3
