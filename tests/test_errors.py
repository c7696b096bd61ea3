from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.errors import EXIT_USAGE, MAXIMUM_LENGTH, UserError


def test_a_plain_sentence_stays_as_it_is():
    error = UserError("Größe of [a] is 3 %: choose 4", EXIT_USAGE)
    assert str(error) == "Größe of [a] is 3 %: choose 4"
    assert error.code == EXIT_USAGE


def test_what_no_terminal_should_be_sent_is_escaped():
    assert str(UserError("a\nb\x1b[31m\u202e\udcff")) == "a\\nb\\x1b[31m\\u202e\\udcff"


@given(st.text(st.characters(exclude_categories=())), st.integers(0, 3))
def test_every_sentence_is_one_printable_line(text, times):
    assert str(UserError(text * 10**times)).isprintable()


def test_a_long_sentence_keeps_its_beginning_and_its_end():
    sentence = str(UserError(f"the cell {'{' * 9000} is wrong: correct it"))
    assert len(sentence) == MAXIMUM_LENGTH
    assert sentence.startswith("the cell {{{") and " ... " in sentence and sentence.endswith("{ is wrong: correct it")
