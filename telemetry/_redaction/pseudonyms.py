"""
Identifiers of people and wallets, made harmless before they leave the process.

`pseudonym` is a keyed hash: the same subject gives the same id, and without the key no one can
hash a list of known addresses and compare. The key is TELEMETRY_SUBJECT_KEY; give all processes
the same one and their ids match. Without it the key is random, made when this module is imported:
ids then match within this process and its forks only, which is safe and is said once.

`shorten` keeps the beginning, as people write it: `0x12345678...`.
"""

import functools
import os
import re
from typing import Any, Final

from telemetry import _diagnostics, _values

KEY: Final = "TELEMETRY_SUBJECT_KEY"
DIGEST_BYTES: Final = 12
KEPT: Final = 10

_WALLET = re.compile(r"0[xX][0-9a-fA-F]{40}")
_given = os.environ.get(KEY, "").strip()
_random = b"" if _given else os.urandom(32)


def pseudonym(subject: object) -> str:
    """
    A keyed hash of an identifier: 24 hex characters, the same for the same subject.

    Example:
        track("passport.claimed", wallet=pseudonym(wallet_address))

    Args:
        subject: an address, an e-mail, an account number. Ethereum addresses are compared without
            regard to case.
    """
    if not _given:
        text = f"{KEY} is not set: hashed ids of subjects match within this process only"
        _diagnostics.say("subject key", text, level="info")
    text = _values.text(subject)
    if _WALLET.fullmatch(text):
        text = text.lower()
    digest: str = _hash()(text.encode(), digest_size=DIGEST_BYTES, key=_key()).hexdigest()
    return digest


@functools.cache
def _hash() -> Any:
    import hashlib  # noqa: PLC0415 - 3 ms that `import telemetry` need not pay

    return hashlib.blake2b


@functools.cache
def _key() -> bytes:
    key: bytes = _random or _hash()(_given.encode(), digest_size=32).digest()
    return key


def shorten(subject: object) -> str:
    """
    The beginning of an identifier: at most ten characters, at most a third of it.

    Example:
        logger.info("analyzing", wallet=shorten(wallet_address))
    """
    text = _values.text(subject)
    return text[: min(KEPT, len(text) // 3)] + "..."
