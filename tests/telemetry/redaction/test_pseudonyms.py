"""pseudonym and shorten: identifiers that may leave the process."""

import hashlib

import pytest

from telemetry.ml import pseudonym, shorten

WALLET = "0x52908400098527886E0F7030069857D2E4169EE7"


def test_a_wallet_is_shortened_as_people_write_it():
    """R7: ten characters of an address are left, and at most a third of anything."""
    texts = [WALLET, "bob@example.org", "4711", "", None]
    assert [shorten(text) for text in texts] == ["0x52908400...", "bob@e...", "4...", "...", "N..."]


def test_a_pseudonym_is_the_same_for_the_same_subject():
    """R7: one subject, one id, with addresses in any case; nothing of the address is in it."""
    found = {pseudonym(WALLET), pseudonym(WALLET.lower()), pseudonym("0x" + WALLET[2:].upper())}
    assert len(found) == 1
    assert pseudonym("another") not in found
    (hashed,) = found
    assert not any(part in hashed for part in (WALLET[2:10].lower(), WALLET[-8:].lower()))


@pytest.mark.parametrize("key", ["", "secret"])
def test_the_key_decides(run, key):
    """R7: with a key all processes agree, and without one nobody can guess by hashing a list."""
    code = f"from telemetry.ml import pseudonym; print(pseudonym({WALLET!r}))"
    first, second = (run(code, TELEMETRY_SUBJECT_KEY=key).stdout for _ in range(2))
    assert (first == second) is bool(key)
    plain = hashlib.blake2b(WALLET.lower().encode(), digest_size=12).hexdigest()
    assert plain not in (first.strip(), second.strip())
