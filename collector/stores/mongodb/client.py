"""The MongoDB client with our settings, and how documents are read and confirmed."""

from datetime import UTC
from typing import Any, Final
from urllib.parse import parse_qsl

import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from opentelemetry.instrumentation.utils import suppress_instrumentation
from pymongo.write_concern import WriteConcern

CODEC: Final[CodecOptions[dict[str, Any]]] = CodecOptions(
    tz_aware=True,
    tzinfo=UTC,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
DURABLE: Final = WriteConcern(w="majority", j=True)


def client_of(uri: str, timeout_s: float, pool: int) -> "pymongo.MongoClient[dict[str, Any]]":
    """
    A client with our settings, which connects when it is used; what the URI sets stays.

    Args:
        uri: of the servers.
        timeout_s: of an insert; connecting must not take longer.
        pool: connections at most.
    """
    ours = {
        "connectTimeoutMS": min(5000, int(timeout_s * 1000)),
        "maxPoolSize": pool,
        "appname": "otelier-collector",
    }
    given = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2])}
    with suppress_instrumentation():
        return pymongo.MongoClient(
            str(uri),
            connect=False,
            tz_aware=True,
            uuidRepresentation="standard",
            **{name: value for name, value in ours.items() if name.lower() not in given},  # type: ignore[arg-type] # the driver types its options one by one
        )


def servers(uri: str) -> str:
    """The hosts of a valid connection string, without anything else of it."""
    authority = uri.partition("://")[2].partition("/")[0].partition("?")[0]
    return authority.rpartition("@")[2]


def squeezed_badly(uri: str) -> str:
    """
    What is wrong with the compression that a connection string asks for; empty when nothing is.

    MongoDB servers without the fix of CVE-2025-14847 give away memory through zlib; the driver offers
    it only when it is named.
    """
    for name, value in parse_qsl(uri.partition("?")[2]):
        if name.lower() == "compressors" and "zlib" in value.lower().replace(" ", "").split(","):
            return (
                "the `uri` asks for zlib, through which servers without the fix of CVE-2025-14847 "
                "give away memory: use compressors=zstd (pip install zstandard) or none"
            )
    return ""
