import json

import pytest

from cxr_jax.bundle.record import read_bundle
from cxr_jax.bundle.starter import STARTER
from cxr_jax.runs.continued import Continued, write_continued
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.trained_on import GUANGZHOU, films_of, told_films

OFFICIAL = {
    "name": "chest_xray",
    "phantom": False,
    "counts": {"test": {"NORMAL": 234, "PNEUMONIA": 390}},
    "subtypes": {"test": {"normal": 234, "bacteria": 242, "virus": 148, "unknown": 0}},
}
SUBTYPES = {**OFFICIAL, "counts": {"test": {"normal": 234, "bacteria": 242, "virus": 148}}}
UNNAMED = {**OFFICIAL, "subtypes": {"test": {"normal": 234, "bacteria": 0, "virus": 0, "unknown": 390}}}
OTHERS = {"name": "others", "phantom": False, "counts": {"test": {"NORMAL": 3, "PNEUMONIA": 4}}, "subtypes": {}}


LIKE = "and is for films like those: on others it can be wrong unseen."
PHANTOMS = "This network learned from phantoms, which a program drew: it is for nobody's films."


@pytest.mark.parametrize(
    ("card", "before", "told"),
    [
        (OFFICIAL, (), GUANGZHOU),
        (SUBTYPES, (), GUANGZHOU),
        (UNNAMED, (), GUANGZHOU),
        ({**OFFICIAL, "phantom": True}, (), PHANTOMS),
        (OTHERS, (), f"This network learned from the films of others, {LIKE}"),
        (OTHERS, ["earlier"], f"This network learned from the films of others, after those of earlier, {LIKE}"),
        (
            {**OTHERS, "replay": {"dataset": "earlier"}},
            ["earlier"],
            f"This network learned from the films of others, after those of earlier, which were mixed in, {LIKE}",
        ),
        (
            {**OTHERS, "replay": {"dataset": "more"}},
            (),
            f"This network learned from the films of others, mixed with those of more, {LIKE}",
        ),
        (
            OTHERS,
            ["earlier", "more"],
            f"This network learned from the films of others, after those of earlier and more, {LIKE}",
        ),
        ({}, (), f"This network learned from the films of one collection, {LIKE}"),
    ],
)
def test_whose_films_a_network_is_for(card, before, told):
    assert films_of(card, before) == told


def test_a_run_tells_of_its_card_and_of_the_run_that_it_learned_on_from(tmp_path):
    run = RunFolder(tmp_path)
    assert told_films(run) == ""
    run.data_card.write_text(json.dumps(OFFICIAL))
    assert told_films(run) == GUANGZHOU
    write_continued(run, Continued("../a", "net", "last", 3, "s", (0.5,), (0.2,), "", "", "earlier", "f"))
    assert "the films of chest_xray, after those of earlier, and is for films like those" in told_films(run)


def test_the_starter_network_says_it():
    assert read_bundle(STARTER).films == GUANGZHOU
