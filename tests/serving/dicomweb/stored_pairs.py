"""What an archive holds of the results of each radiograph."""

from tests.serving.dicomweb.archive_server import header


def pairs(archive):
    """How often each radiograph has a report, and a picture."""
    counted = {}
    for made in archive.made("SR"):
        uid = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        counted.setdefault(uid.ReferencedSOPInstanceUID, [0, 0])[0] += 1
    for made in archive.made("OT"):
        counted.setdefault(made.SourceImageSequence[0].ReferencedSOPInstanceUID, [0, 0])[1] += 1
    return counted


def finished(archive, *studies):
    """Whether every radiograph in `studies`, and no other, has one report and one picture."""
    films = {uid for uid, data in archive.files.copy().items() if header(data).Modality in ("CR", "DX")}
    wanted = {uid for uid in films if any(uid.startswith(f"{study}.") for study in studies)}
    return pairs(archive) == {uid: [1, 1] for uid in wanted}
