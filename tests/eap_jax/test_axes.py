"""The glossary is well formed; `tests/test_axes.py` holds the source to it."""

from eap_jax.axes import AXES


def test_every_entry_is_one_letter_with_a_meaning_of_its_own():
    assert all(len(letter) == 1 and letter.isalpha() for letter in AXES)
    assert all(AXES.values())
    assert len(set(AXES.values())) == len(AXES)
    assert list(AXES) == sorted(AXES), "found by eye"


def test_letters_agreed_with_the_field_keep_their_meaning():
    for letter, word in {
        "B": "batch",
        "T": "query",
        "S": "key",
        "D": "residual",
        "V": "vocab",
    }.items():
        assert word in AXES[letter]
