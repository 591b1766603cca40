"""Which errors are worth another try, and for how long they ask: as each library says it."""

import email.message
import urllib.error

import pytest

from telemetry._batch.rate_limit import retry_after
from telemetry.batch import is_transient


class Shaped(Exception):
    """An error with the attributes that a library gives its own."""

    def __init__(self, **attributes):
        super().__init__("shaped")
        vars(self).update(attributes)


class ClientConnectionError(Exception):
    """Named as the root of aiohttp's connection errors."""


class ServerDisconnectedError(ClientConnectionError):
    """aiohttp's, as far as its ancestors go."""


def answered(status, headers=None):
    """An error of urllib with a status and headers."""
    found = email.message.Message()
    for name, value in (headers or {}).items():
        found[name] = value
    return urllib.error.HTTPError("http://h", status, "no", found, None)


def botocore(status, headers=None):
    """An error of botocore: its response is a dict."""
    about = {"HTTPStatusCode": status, "HTTPHeaders": headers or {}}
    return Shaped(response={"Error": {"Code": "X"}, "ResponseMetadata": about})


@pytest.mark.parametrize(
    "error",
    [
        answered(503),
        urllib.error.URLError(ConnectionRefusedError()),
        ServerDisconnectedError(),
        Shaped(status=502, headers={}),
        botocore(429),
        Shaped(code=503),
        Shaped(response=Shaped(status_code=408)),
    ],
)
def test_worth_another_try(error):
    """Issue 19.10: urllib, aiohttp, botocore, google and httpx errors that may pass."""
    assert is_transient(error) is True


@pytest.mark.parametrize(
    "error",
    [
        answered(404),
        urllib.error.URLError("unknown url type"),
        Shaped(status=400),
        botocore(403),
        Shaped(code=True),
        Shaped(code=lambda: 503),
        Shaped(response={"odd": 1}),
    ],
)
def test_not_worth_another_try(error):
    """Issue 19.10: those that will not, and attributes that mean something else."""
    assert is_transient(error) is False


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (answered(429, {"Retry-After": "7"}), 7.0),
        (botocore(429, {"retry-after": "3"}), 3.0),
        (Shaped(response=Shaped(headers={"Retry-After-Ms": "1500", "retry-after": "9"})), 1.5),
        (Shaped(headers={"retry-after-ms": "soon"}), None),
        (Shaped(), None),
    ],
)
def test_how_long(error, seconds):
    """Issue 19.10: `retry-after-ms` is finer and wins; headers are found where the library has them."""
    assert retry_after(error) == seconds
