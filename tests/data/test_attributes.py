import pytest

from cxr_jax.data.attributes import Attributes, age, attributes_of, sex, view


@pytest.mark.parametrize(
    ("cell", "years"),
    [("57", 57), ("057Y", 57), ("18M", 1.5), ("0", 0), ("3.5 y", 3.5), ("", None), ("NA", None), ("414", None)],
)
def test_ages(cell, years):
    assert age(cell) == years


def test_sexes_and_views():
    assert [sex(cell) for cell in ("F", "male", "MALE", "", "Unknown", "O")] == ["F", "M", "M", "", "", ""]
    assert [view(cell) for cell in ("pa", "AP", "nan")] == ["PA", "AP", ""]


@pytest.mark.parametrize(("parse", "cell"), [(age, "old"), (age, "-3"), (age, "5 z"), (sex, "x")])
def test_what_is_no_age_or_sex_is_refused(parse, cell):
    with pytest.raises(ValueError, match=cell):
        parse(cell)


def test_bands_begin_with_their_first_year():
    found = [Attributes(years).band for years in (0, 4.9, 5, 17.9, 18, 39, 40, 59, 60, 130)]
    assert found == [
        "under 5",
        "under 5",
        *["5 to 17"] * 2,
        *["18 to 39"] * 2,
        *["40 to 59"] * 2,
        *["60 and older"] * 2,
    ]
    assert Attributes().band == ""


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ((), Attributes()),
        ((("age", "57"), ("sex", "F"), ("view", "PA")), Attributes(57.0, "F", "PA")),
        ((("Patient Age", "057Y"), ("Patient Gender", "M"), ("View Position", "ap")), Attributes(57.0, "M", "AP")),
        ((("Age", "61"), ("Sex", "Female"), ("AP/PA", "AP"), ("Support Devices", "1")), Attributes(61.0, "F", "AP")),
        ((("patient_age", "old"), ("sex", "?"), ("viewpoint", "PA")), Attributes()),
    ],
)
def test_attributes_are_found_by_the_names_of_their_columns(known, found):
    assert attributes_of(known) == found
