"""
Secrets that are known by their shape: what a token of this or that vendor looks like.

Each shape is a function from a text to the places in it. A text is looked at closely only if it has
what the shape cannot do without (`@`, `0x`, `eyj`), because nearly every text has none of it. All
expressions are linear: repeats that follow each other share no character, and a run of characters
is entered at its beginning only. Numbers that merely look like a card number are kept apart by the
issuer's range, the length and the checksum; addresses of Bitcoin by their checksum.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import Final

Span = tuple[int, int]

PRIVATE_KEY: Final = "private_key"
AUTH_HEADER: Final = "auth_header"
URL_CREDENTIALS: Final = "url_credentials"
JWT: Final = "jwt"
API_TOKEN: Final = "api_token"  # noqa: S105 - the name of a rule
CARD: Final = "card"
WALLET: Final = "wallet"
EMAIL: Final = "email"

# Each begins with a character or a choice of characters, which the engine finds fast; that no letter
# or digit stands before it is looked at afterwards.
_AUTH = re.compile(r"(bearer|basic)(?:[ \t]{1,8}|%20|\+)([a-z0-9._~+/-]{8,}={0,2})")
_USERINFO = re.compile(r"://([^\s/?#\"'<>]{1,512}@)")
_JWT = re.compile(r"eyJ(?<![\w-]eyJ)[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*){0,3}")
_JWT_ENCODED = re.compile(r"%(?:20|3D|22)eyJ[\w-]{6,}\.[\w-]{4,}(?:\.[\w-]*){0,3}")
_SCORED = re.compile(  # tokens with an underscore
    r"gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|sk_(?:live|test|prod)_\w{10,}|rk_(?:live|test|prod)_\w{10,}|whsec_[A-Za-z0-9+/=]{16,}"
    r"|npm_[A-Za-z0-9]{30,}|hf_[A-Za-z0-9]{30,}|dop_v1_[0-9a-f]{40,}"
    r"|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32,}|dckr_pat_[\w-]{20,}|lin_api_\w{20,}|sbp_[0-9a-f]{40,}"
    r"|r8_\w{30,}|gsk_\w{30,}"
)
_DASHED = re.compile(  # tokens with a dash
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|xai-\w{40,}|pplx-\w{40,}"
    r"|gl(?:pat|ptt|dt|rt|soat)-[\w-]{20,}|pypi-[\w-]{30,}|GOCSPX-[\w-]{20,}|sk-[\w-]{20,}"
    r"|key-[0-9a-f]{32}(?![A-Za-z0-9])"
)
_OTHER = re.compile(
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])|AIza[\w-]{35}|ya29\.[\w-]{20,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|EAACEdEose0cBA[A-Za-z0-9]+|hvs\.[\w-]{24,}"
    r"|\d{8,10}:AA[\w-]{33}"
)
_HOOK = re.compile(
    r"(?<=hooks\.slack\.com/)(?:services|workflows)/[\w/+-]{8,}"
    r"|(?<=/api/webhooks/)\d{1,32}/[\w-]{20,}"
)
_LONG = re.compile(r"[1-6](?:\d{3}[ -]?\d{4}|[1-9A-HJ-NP-Za-km-z]{25})")  # a card's or an address's
_CARD = re.compile(
    r"[2-6](?:\d{3}([ -]?)\d{4}(?:\1\d{4}){2}|[47]\d{2}[ -]?\d{6}[ -]?\d{5}"
    r"|[068]\d{2}[ -]?\d{6}[ -]?\d{4})(?![\w-])(?!\.\d)"
)
_ID_BEFORE = re.compile(
    r"(?:id|uid|order|trace|span|task|request|hash|block|tx|ref|no|nr|number|seq|ns|ts|#)"
    r"[\s\"'\\:=#.(\[{]{0,6}\Z",
    re.IGNORECASE,
)
_CARD_BEFORE = re.compile(r"card.{0,16}\Z", re.IGNORECASE | re.DOTALL)
_ETHEREUM = re.compile(r"0[xX][0-9a-fA-F]{40}(?![0-9A-Za-z])")
_BECH32 = re.compile(r"(?<![0-9A-Za-z])(?:bc1|BC1)[02-9ac-hj-np-zAC-HJ-NP-Z]{11,87}(?![0-9A-Za-z])")
_BASE58 = re.compile(r"[13][1-9A-HJ-NP-Za-km-z]{25,34}(?![0-9A-Za-z])")
_DOMAIN = re.compile(r"(?:@|%40)((?:[^\W_][\w-]{0,62}\.){1,8}[A-Za-z]{2,24})(?![\w-])")
_LOCAL = re.compile(r"[\w.+%-]{1,64}")  # on the reversed text before the @
_PLACES: Final = ("internal", "local", "localdomain", "lan", "cluster", "svc", "arpa")
_PROGRAMS: Final = ("git", "celery", "hg", "svn")

_BECH32_DIGITS: Final = {c: i for i, c in enumerate("qpzry9x8gf2tvdw0s3jn54khce6mua7l")}
_BASE58_DIGITS: Final = {
    c: i for i, c in enumerate("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
}


def find(text: str, low: str, *, is_id: bool) -> Iterator[tuple[str, list[Span]]]:
    """
    Each shape that occurs in a text, and where.

    Args:
        text: what is looked at.
        low: the same in lower case.
        is_id: the text is the value of an id, which a card number or a checksum may be by chance.
    """
    if "private key" in low:
        yield PRIVATE_KEY, private_keys(text)
    if "bearer" in low or "basic" in low:
        yield AUTH_HEADER, auth_headers(text, low)
    at = "@" in text
    if at and "://" in text:
        yield URL_CREDENTIALS, url_credentials(text)
    if "eyJ" in text:
        yield JWT, [*places(_JWT, text), *encoded_jwts(text)]
    yield API_TOKEN, api_tokens(text, low)
    if "0x" in low:
        yield WALLET, places(_ETHEREUM, text)
    if "bc1" in low:
        yield WALLET, [where for where in places(_BECH32, text) if bech32(text[slice(*where)])]
    if not is_id and len(text) >= 14 and _LONG.search(text):
        yield CARD, cards(text)
        if len(text) >= 26:
            yield WALLET, [where for where in places(_BASE58, text) if base58(text[slice(*where)])]
    if at or "%40" in text:
        yield EMAIL, emails(text)


def places(pattern: re.Pattern[str], text: str) -> list[Span]:
    """Where a pattern matches and is not part of a longer word."""
    found = [match.span() for match in pattern.finditer(text)]
    return (
        [where for where in found if not where[0] or not _alnum(text[where[0] - 1])]
        if found
        else found
    )


def _alnum(character: str) -> bool:
    return character.isascii() and character.isalnum()


def encoded_jwts(text: str) -> list[Span]:
    """Tokens behind a percent-encoded space, quote or equals sign."""
    if "%" not in text:
        return []
    return [(found.start() + 3, found.end()) for found in _JWT_ENCODED.finditer(text)]


def private_keys(text: str) -> list[Span]:
    """PEM blocks with a private key; one whose end is missing reaches to the end of the text."""
    found: list[Span] = []
    position = 0
    while (begin := text.find("-----BEGIN", position)) >= 0:
        head_end = text.find("-----", begin + 10)
        if head_end < 0:
            break
        position = head_end + 5
        if "PRIVATE KEY" not in text[begin : min(head_end, begin + 64)]:
            continue
        end = text.find("-----END", position)
        if end >= 0:
            end = text.find("-----", end + 8)
        position = len(text) if end < 0 else end + 5
        found.append((begin, position))
    return found


def auth_headers(text: str, low: str) -> list[Span]:
    """What follows `Bearer` or `Basic`, where it looks like a token and not like a word."""
    return [
        found.span(2)
        for found in _AUTH.finditer(low)
        if not (found.start() and _alnum(text[found.start() - 1]))
        and _tokenlike(text[slice(*found.span(2))], basic=found[1] == "basic")
    ]


def _tokenlike(token: str, *, basic: bool) -> bool:
    if basic:
        try:
            return b":" in base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
        except (binascii.Error, ValueError):
            return False
    body = token.rstrip("=")
    digits = any(map(str.isdigit, body))
    return (digits and len(body) >= 10) or len(body) >= 32 or body[1:] != body[1:].lower()


def url_credentials(text: str) -> list[Span]:
    """The password in `scheme://user:password@host`, or a long user name, which is a token."""
    found = []
    for match in _USERINFO.finditer(text):
        begin, end = match.start(1), match.start(1) + match[1].rindex("@")
        colon = text.find(":", begin, end)
        if colon >= 0:
            if end > colon + 1:
                found.append((colon + 1, end))
        elif end - begin >= 16:
            found.append((begin, end))
    return found


def api_tokens(text: str, low: str) -> list[Span]:
    """Tokens with the mark of a vendor."""
    found: list[Span] = []
    if len(text) < 16:
        return found
    if "_" in text:
        found += places(_SCORED, text)
    if "-" in text:
        found += [
            where
            for where in places(_DASHED, text)
            if not text.startswith("sk-", where[0]) or _mixed(text[slice(*where)])
        ]
    if (
        "AKIA" in text
        or "ASIA" in text
        or "AIza" in text
        or "ya29." in text
        or "SG." in text
        or "hvs." in text
        or ":AA" in text
        or "ABIA" in text
        or "ACCA" in text
        or "EAACE" in text
    ):
        found += places(_OTHER, text)
    if "hooks.slack" in low or "/webhooks/" in low:
        found += places(_HOOK, text)
    return found


def _mixed(token: str) -> bool:
    """Whether this is more than words with dashes between them."""
    return any(map(str.isdigit, token)) and len(max(token.split("-"), key=len)) >= 16


def cards(text: str) -> list[Span]:
    """Card numbers: range of the issuer, length, checksum, and not called an id by the text."""
    found = []
    for match in _CARD.finditer(text):
        before = text[match.start() - 1 : match.start()]
        if before and (before in ".-_" or before.isalnum()):
            continue
        digits = [int(c) for c in match[0] if c.isdigit()]
        if not _issued(digits) or not luhn(digits):
            continue
        before = text[max(match.start() - 24, 0) : match.start()]
        if _ID_BEFORE.search(before) and not _CARD_BEFORE.search(before):  # "card number" is none
            continue
        found.append(match.span())
    return found


def _issued(digits: list[int]) -> bool:
    two, four = digits[0] * 10 + digits[1], int("".join(map(str, digits[:4])))
    if len(digits) == 16:
        return (
            digits[0] == 4
            or 51 <= two <= 55
            or 2221 <= four <= 2720
            or two in (62, 65)
            or four == 6011
            or 3528 <= four <= 3589
            or 644 <= four // 10 <= 649
        )
    if len(digits) == 15:
        return two in (34, 37)
    return two in (36, 38) or 300 <= four // 10 <= 305


def luhn(digits: list[int]) -> bool:
    """Whether the checksum of a card number is right."""
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2])
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def bech32(address: str) -> bool:
    """Whether the checksum of a `bc1...` address is right (BIP 173, BIP 350)."""
    low = address.lower()
    if address not in (low, address.upper()):
        return False
    values = [3, 3, 0, 2, 3, *(_BECH32_DIGITS.get(c, 0) for c in low[3:])]
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            if top >> bit & 1:
                check ^= generator
    return check in (1, 0x2BC830A3)


def base58(address: str) -> bool:
    """Whether the checksum of a `1...` or `3...` address is right."""
    number = 0
    for c in address:
        number = number * 58 + _BASE58_DIGITS[c]
    try:
        raw = number.to_bytes(25, "big")
    except OverflowError:
        return False
    check = hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()
    return raw[0] in (0, 5) and check[:4] == raw[21:]


def emails(text: str) -> list[Span]:
    """E-mail addresses; not names of nodes (`celery@host.local`) nor of repositories (`git@...`)."""
    found = []
    for match in _DOMAIN.finditer(text):
        begin = match.start()
        local = _LOCAL.match(text[max(begin - 64, 0) : begin][::-1])
        if local is None:
            continue
        name = local[0][::-1]
        if name in _PROGRAMS or match[1].rpartition(".")[2].lower() in _PLACES:
            continue
        found.append((begin - len(name), match.end()))
    return found
