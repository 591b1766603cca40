"""
Whether a name says that its value is a secret: whole words, never substrings.

A name is cut into words (`X-Api-Key`, `apiKey`, `api_key` are all `api key`), words that only say
something about the form are taken off its end (`password_2`, `token_value`), and what the name then
ends with is looked up. So `access_token` is a secret, and `tokens_in`, `token_count`,
`gen_ai.token.type` and `password_reset_at` are not. In names without any border (`dbpassword`) a few
endings that mean nothing else count too.
"""

import re
from collections.abc import Iterable
from typing import Final

LENGTH: Final = 256

SECRET: Final = frozenset(
    """
    password passwords passwd passwds pwd pwds passphrase passphrases passcode passcodes pass
    secret secrets token credential credentials authorization cookie cookies dsn jwt csrf xsrf
    apikey apikeys privatekey privatekeys secretkey secretkeys accesskey accesskeys signingkey
    encryptionkey masterkey authkey accountkey sharedkey sharedaccesskey sshkey sessionkey
    servicekey licensekey authcode authorizationcode verificationcode
    accesstokens authtokens refreshtokens apitokens sessiontokens bearertokens
    connectionstring connectionstrings connstr connstring sessid phpsessid jsessionid
    cvv cvv2 cvc ssn socialsecuritynumber otp otpcode totp creditcard creditcardnumber cardnumber
    cardno mnemonic seedphrase recoveryphrase secretphrase mnemonicphrase seedwords
    """.split()  # noqa: SIM905 - words, not quotes, are read here
)
NUMBERS_TOO: Final = frozenset(
    """
    password passwd pwd passphrase passcode secret cvv cvv2 cvc ssn socialsecuritynumber otp totp
    creditcard creditcardnumber cardnumber cardno verificationcode
    """.split()  # noqa: SIM905 - words, not quotes, are read here
)
"""Of the secret names, those whose numbers are secret as well; `token: 5` is a number of tokens."""
IN_QUERIES: Final = frozenset(
    ("code", "state", "key", "sig", "signature", "session", "auth", "hmac", "ticket")
)
"""Secret only as the name of a parameter in a URL."""
ENDINGS: Final = (
    *("password", "passwd", "passphrase", "apikey", "privatekey", "secretkey", "accesskey"),
    *("accesstoken", "authtoken", "refreshtoken", "sessiontoken", "clientsecret", "mysqlpwd"),
)
FORMS: Final = frozenset(
    """
    value raw plain plaintext text str string b64 base64 header old new current previous confirm
    confirmation repeat again hash hashed salt encrypted field input param arg
    """.split()  # noqa: SIM905 - words, not quotes, are read here
)
IDS: Final = frozenset(
    """
    id ids uid uids uuid uuids guid guids hash hashes sha sha1 sha256 md5 digest checksum etag nonce
    ref reference number no nr seq sequence timestamp ts ns ms time block height commit revision
    version fingerprint txid tx signature
    """.split()  # noqa: SIM905 - words, not quotes, are read here
)
"""Names of this kind have values that may look like a card number and are none."""

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+|[^\W_0-9A-Za-z]+")


def words(name: str) -> list[str]:
    """The words of a name in lower case."""
    return [word.lower() for word in _WORDS.findall(name[-LENGTH:])]


def compact(name: str) -> str:
    """`X-Api-Key` -> `xapikey`: how own names are compared."""
    return "".join(_WORDS.findall(name)).lower()


def secret(found: list[str], names: frozenset[str] = SECRET) -> str | None:
    """The secret name that a name of these words ends with, but for words that name the form."""
    end = len(found)
    while end:
        ending = ""
        for word in reversed(found[max(end - 4, 0) : end]):
            ending = word + ending
            if ending in names:
                return ending
        last = found[end - 1]
        if names is SECRET:
            for ending in ENDINGS:
                if last.endswith(ending):
                    return ending
        if not (last in FORMS or last.isdigit()):
            return None
        end -= 1
    return None


def endings(names: Iterable[str]) -> frozenset[str]:
    """The last two letters that the name of a secret can have: a cheap first look."""
    forms = (*SECRET, *FORMS, *IN_QUERIES, *ENDINGS, *names)
    return frozenset(name[-2:].lower() for name in forms)


def needles(names: Iterable[str]) -> tuple[str, ...]:
    """Short texts of which each name, however it is written, contains one: a cheap first look."""
    known = (
        *("pass", "pwd", "secret", "token", "key", "cookie", "auth", "credential", "csrf", "xsrf"),
        *("jwt", "dsn", "conn", "cvv", "cvc", "ssn", "security", "otp", "card", "mnemonic"),
        *("phrase", "seed", "sessid", "sessionid", "code"),
    )
    # An own name may be written in words (`customer name`): its first word is what to look for.
    own = [words(name)[0] for name in names if words(name)]
    return (
        *known,
        *(name for name in dict.fromkeys(own) if not any(stem in name for stem in known)),
    )
