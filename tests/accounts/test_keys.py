"""The text of a key."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.accounts import keys
from app.ids import ALPHABET


def test_a_key_is_a_prefix_160_random_bits_and_a_checksum() -> None:
    made = {keys.generate() for _ in range(500)}
    assert len(made) == 500
    assert all(re.fullmatch(r"fgk_[0-9a-hjkmnp-tv-z]{32}[0-9a-hjkmnp-tv-z]{6}", key) for key in made)
    assert all(keys.is_well_formed(key) for key in made)
    assert len(ALPHABET) ** keys.RANDOM_LETTERS == 2**160


def test_keys_made_by_an_earlier_release_stay_keys() -> None:
    assert keys.is_well_formed("fgk_0123456789abcdefghjkmnpqrstvwxyz" + "eeagw2")


@given(place=some.integers(0, 41), letter=some.sampled_from(string.ascii_letters + string.digits + "_-"))
def test_one_wrong_letter_is_always_noticed(place: int, letter: str) -> None:
    key = keys.generate()
    wrong = key[:place] + letter + key[place + 1 :]
    assert keys.is_well_formed(wrong) == (wrong == key)


@pytest.mark.parametrize("change", [str.upper, lambda key: key[:-1], lambda key: key + "0", lambda key: key + "\n"])
def test_a_cut_or_changed_key_is_not_a_key(change: object) -> None:
    assert callable(change)
    assert not keys.is_well_formed(change(keys.generate()))


@given(some.text())
def test_any_text_can_be_looked_at(text: str) -> None:
    assert not keys.is_well_formed(text)


def test_the_digest_is_sha256_of_the_whole_key() -> None:
    assert keys.digest("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
