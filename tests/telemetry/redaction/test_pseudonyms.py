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
def test_ids_outlast_the_process(run, tmp_path, key):
    """R7: ids match after a restart, with a key of the variable or a kept one; no list can be hashed."""
    code = f"from telemetry.ml import pseudonym; print(pseudonym({WALLET!r}))"
    kept = tmp_path / "data" / "otelier" / "subject.key"
    first, second = (
        run(code, TELEMETRY_SUBJECT_KEY=key, XDG_DATA_HOME=str(tmp_path / "data")).stdout
        for _ in range(2)
    )
    assert first == second
    plain = hashlib.blake2b(WALLET.lower().encode(), digest_size=12).hexdigest()
    assert first.strip() != plain
    assert kept.exists() is not bool(key)
    if kept.exists():
        assert kept.stat().st_mode & 0o777 == 0o600
        other = run(code, XDG_DATA_HOME=str(tmp_path / "other")).stdout
        assert other != first


def test_a_key_that_others_could_read_is_not_used(run, tmp_path):
    """A kept key with loose permissions, a link, or a damaged one: a random key, and one line says why."""
    kept = tmp_path / "otelier" / "subject.key"
    kept.parent.mkdir()
    code = f"from telemetry.ml import pseudonym; print(pseudonym({WALLET!r}))"
    target = tmp_path / "target"
    target.write_text("00" * 32)
    target.chmod(0o600)
    for spoil in ("mode", "link", "damage"):
        kept.unlink(missing_ok=True)
        if spoil == "link":
            kept.symlink_to(target)
        else:
            kept.write_text("00" * 32 if spoil == "mode" else "zz")
            kept.chmod(0o644 if spoil == "mode" else 0o600)
        done = [run(code, XDG_DATA_HOME=str(tmp_path)) for _ in range(2)]
        assert done[0].stdout != done[1].stdout
        assert [run.stderr.count("hashed ids of subjects") for run in done] == [1, 1]
    assert target.read_text() == "00" * 32
