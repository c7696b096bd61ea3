from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.data.file_names import FileName, natural_key, parse_file_name
from cxr_jax.vocabulary import NORMAL, PNEUMONIA


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("person1_bacteria_2.jpeg", FileName(PNEUMONIA, "bacteria", "bacteria-person1")),
        ("person1_virus_6.jpeg", FileName(PNEUMONIA, "virus", "virus-person1")),
        ("person447_virus_921_1.jpeg", FileName(PNEUMONIA, "virus", "virus-person447")),
        ("IM-0095-0001.jpeg", FileName(NORMAL, "normal", "IM-0095")),
        ("IM-0095-0001-0002.jpeg", FileName(NORMAL, "normal", "IM-0095")),
        ("NORMAL2-IM-0095-0001.jpeg", FileName(NORMAL, "normal", "NORMAL2-IM-0095")),
        ("NORMAL2-IM-0095-0001-0003.jpeg", FileName(NORMAL, "normal", "NORMAL2-IM-0095")),
        ("NORMAL-28501-0001.jpeg", FileName(NORMAL, "normal", "id-28501")),
        ("BACTERIA-7422-0001.jpeg", FileName(PNEUMONIA, "bacteria", "id-7422")),
        ("VIRUS-7422-0011.jpeg", FileName(PNEUMONIA, "virus", "id-7422")),
    ],
)
def test_both_grammars(name, said):
    assert parse_file_name(name) == said


@pytest.mark.parametrize(
    "name",
    ["", "x.jpeg", "person1_fungus_2.jpeg", "person_bacteria_2.jpeg", "person1_bacteria.jpeg", "IM-0095.jpeg",
     "IM-0095-0001.txt", "my-IM-0095-0001.jpeg", "NORMAL3-IM-0001-0001.jpeg", "person1_bacteria_2_3_4.jpeg",
     "train/IM-0095-0001.jpeg", "COVID-1-1.jpeg"],
)  # fmt: skip
def test_other_names_say_nothing(name):
    assert parse_file_name(name) is None


numbers = st.integers(0, 99_999)


@given(numbers, st.sampled_from(["bacteria", "virus"]), numbers, numbers)
def test_group_is_subtype_and_person(person, subtype, first, second):
    one = parse_file_name(f"person{person}_{subtype}_{first}.jpeg")
    other = parse_file_name(f"person{person}_{subtype}_{second}.jpeg")
    stranger = parse_file_name(f"person{person}_{'virus' if subtype == 'bacteria' else 'bacteria'}_{first}.jpeg")
    assert one.group == other.group
    assert one.group != stranger.group


@given(numbers, numbers)
def test_prefix_separates_normals(person, number):
    assert parse_file_name(f"IM-{person:04d}-{number:04d}.jpeg").group != (
        parse_file_name(f"NORMAL2-IM-{person:04d}-{number:04d}.jpeg").group
    )


def test_natural_order():
    ordered = ["a1", "a2", "a10", "a10b", "b"]
    assert sorted(["b", "a10b", "a10", "a1", "a2"], key=natural_key) == ordered
    ordered = ["person2_x_4", "person2_x_30", "person10_x_1"]
    assert sorted(["person10_x_1", "person2_x_30", "person2_x_4"], key=natural_key) == ordered


@given(st.sets(st.text(alphabet="a01-²٣", max_size=6)))
def test_any_names_can_be_ordered_and_none_are_equal(names):
    ordered = sorted(names, key=natural_key)
    assert all(natural_key(one) < natural_key(other) for one, other in pairwise(ordered))
    assert len({natural_key(name) for name in names}) == len(names)
