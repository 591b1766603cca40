"""
Every error that the collector raises on purpose, and the one table that turns them into answers.

    CollectorError
    ├── ConfigError         the configuration is wrong; lists every problem, ends the start-up
    ├── StartFailed         a component cannot start here (port in use, folder not writable)
    ├── Permanent           this data can never be accepted (bad bytes, too large): never resend it
    │   ├── Unauthenticated no credential, or a wrong one                      401  UNAUTHENTICATED
    │   ├── Malformed       the bytes are not what they claim to be            400  INVALID_ARGUMENT
    │   ├── TooLarge        over a limit that the message names                413  RESOURCE_EXHAUSTED
    │   ├── Unsupported     media type or content encoding that we do not take 415  UNIMPLEMENTED
    │   ├── NotFound        the signal is in no pipeline, or no such path      404  UNIMPLEMENTED
    │   ├── WrongMethod     405, with Allow                                    405  UNIMPLEMENTED
    │   └── Denied          another server refuses us, whatever the data holds 400  INVALID_ARGUMENT
    └── Retryable           not now: keep the data, send it again later        503  UNAVAILABLE

Two kinds are enough for the machine (resend or not); the subclasses carry the words for the human.
Anything else that escapes after decoding is answered as Retryable, because OTLP clients drop a
batch on 500, INTERNAL and UNKNOWN (OTLP 1.11, "Failures").
"""

from typing import Final


class CollectorError(Exception):
    """The root; catch it to catch everything that the collector raises on purpose."""


class ConfigError(CollectorError):
    """
    The configuration cannot be used.

    Args:
        problems: one text each, every problem of the configuration, already with path and fix.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StartFailed(CollectorError):
    """A component cannot start: the message is one line with what, why and the fix."""


class Permanent(CollectorError):
    """This data can never be accepted as it is; a resend would fail in the same way."""


class Unauthenticated(Permanent):
    """The sender did not show a credential that is known."""


class Malformed(Permanent):
    """The bytes are not what they claim to be."""


class TooLarge(Permanent):
    """Over a size, count, depth or ratio limit; the message names the limit."""


class Unsupported(Permanent):
    """A media type or content encoding that we do not take; the message lists those we do."""


class NotFound(Permanent):
    """No such path, or the signal is part of no pipeline."""


class WrongMethod(Permanent):
    """The path exists, the method does not."""


class Denied(Permanent):
    """Another server refuses us for good, whatever the data holds (credential, path): a smaller
    request would fail in the same way.
    """


class Retryable(CollectorError):
    """
    Not now: the sender keeps the data and tries again.

    Args:
        message: what is wrong, for the log of the sender's operator.
        delay_s: seconds that the sender should wait before the next try (RetryInfo, Retry-After).
    """

    def __init__(self, message: str, delay_s: float = 1.0) -> None:
        super().__init__(message)
        self.delay_s = delay_s


# gRPC codes by number, so that this module needs no grpc: google.rpc.Code.
INVALID_ARGUMENT: Final = 3
RESOURCE_EXHAUSTED: Final = 8
UNIMPLEMENTED: Final = 12
UNAVAILABLE: Final = 14
UNAUTHENTICATED: Final = 16

ANSWERS: Final[dict[type[CollectorError], tuple[int, int]]] = {
    Unauthenticated: (401, UNAUTHENTICATED),
    Malformed: (400, INVALID_ARGUMENT),
    TooLarge: (413, RESOURCE_EXHAUSTED),
    Unsupported: (415, UNIMPLEMENTED),
    NotFound: (404, UNIMPLEMENTED),
    WrongMethod: (405, UNIMPLEMENTED),
    Permanent: (400, INVALID_ARGUMENT),
    Retryable: (503, UNAVAILABLE),
}


def answer(error: BaseException) -> tuple[int, int]:
    """HTTP status and gRPC code for `error`; unknown errors are answered as Retryable."""
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return ANSWERS[kind]
    return ANSWERS[Retryable]


LONGEST_DELAY_S: Final = 600.0
"""The longest wait that another server can ask for."""


def bounded(delay_s: float) -> float:
    """A wait that another server asks for, within reason: a wrong answer stops no queue for days."""
    return min(max(delay_s, 0.0), LONGEST_DELAY_S)


def printable(text: str) -> str:
    """A foreign text for a message: on one line, and without anything that steers a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
