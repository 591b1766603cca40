"""
Identifiers of people and wallets, made harmless before they leave the process.

`pseudonym` is a keyed hash: the same subject gives the same id, and without the key no one can
hash a list of known addresses and compare. `subject_key` has the key, which outlasts the process.

`shorten` keeps the beginning, as people write it: `0x12345678...`.
"""

import functools
import re
from typing import Any, Final

from telemetry import _values
from telemetry._redaction import subject_key

DIGEST_BYTES: Final = 12
KEPT: Final = 10

_WALLET = re.compile(r"0[xX][0-9a-fA-F]{40}")


def pseudonym(subject: object) -> str:
    """
    A keyed hash of an identifier: 24 hex characters, the same for the same subject.

    Example:
        track("passport.claimed", wallet=pseudonym(wallet_address))

    Args:
        subject: an address, an e-mail, an account number. Ethereum addresses are compared without
            regard to case.
    """
    text = _values.text(subject)
    if _WALLET.fullmatch(text):
        text = text.lower()
    digest: str = _hash()(
        text.encode(), digest_size=DIGEST_BYTES, key=subject_key.current().key
    ).hexdigest()
    return digest


@functools.cache
def _hash() -> Any:
    import hashlib  # noqa: PLC0415 - 3 ms that `import telemetry` need not pay

    return hashlib.blake2b


def shorten(subject: object) -> str:
    """
    The beginning of an identifier: at most ten characters, at most a third of it.

    Example:
        logger.info("analyzing", wallet=shorten(wallet_address))
    """
    text = _values.text(subject)
    return text[: min(KEPT, len(text) // 3)] + "..."
