"""
The settings of the file exporter: its own keys, and the sections rotation, groups and routes.

What the OpenTelemetry Collector's fileexporter has is named as there; `daily`, `routes` and what
keeps names from data in bounds are ours.
"""

import os
import re
from typing import Annotated, Final, Literal

import msgspec

from collector.model import Duration, OnRequest
from collector.sending_queue.config import RetryOnFailure, SendingQueue

Format = Literal["json", "text", "logfmt", "otlp_json", "otlp_proto", "proto"]
Compression = Literal["", "none", "gzip", "zstd"]
Level = Literal["", "debug", "info", "warning", "error", "critical"]
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
STRONGEST: Final = {"gzip": 9, "zstd": 22}


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a file is put aside and a new one begun: `rotation:`."""

    max_megabytes: int = 100
    """A file that would grow beyond so many MiB is put aside first; 0 = no limit."""
    max_days: int = 0
    """Files put aside more than so many days ago are deleted; 0 = never."""
    max_backups: int = 100
    """Of the files put aside so many are kept, the newest; 0 = all."""
    localtime: bool = False
    """Days and times in names are those of this machine's time zone; otherwise UTC."""
    daily: bool = False
    """A file for each day, with the day in its name: `errors.log` is `errors-2025-07-06.log`."""

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        for key in ("max_megabytes", "max_days", "max_backups"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must be 0 or more, found {getattr(self, key)}")
        if not self.max_megabytes and not self.daily:
            raise ValueError("max_megabytes is 0 and daily is off, so nothing would ever rotate")


class CompressionParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How hard to compress: `compression_params:`."""

    level: int = 0
    """1 is fast, 9 (gzip) or 22 (zstd) is small; 0 leaves it to the method."""


class GroupBy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file for each value of a resource attribute: `group_by:`."""

    enabled: bool = False
    """Whether the `*` in `path` stands for a resource attribute."""
    resource_attribute: str = "fileexporter.path_segment"
    """The resource attribute whose value takes the place of the `*`."""
    max_open_files: int = 100
    """So many files are open at once; the one that was not written to for longest is closed."""
    allowed: str = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
    """The values that may become part of a path, as a regular expression for the whole value. A
    slash, a control character, `.` and `..` never may."""
    otherwise: str = "other"
    """Stands in the place of a value that is absent or may not become part of a path."""
    max_groups: int = 1000
    """So many different values get a file of their own until the next start; the rest share the
    one of `otherwise`, because a sender must not be able to fill a folder with files."""

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        for key in ("max_open_files", "max_groups"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} must be 1 or more, found {getattr(self, key)}")
        if not self.resource_attribute:
            raise ValueError("resource_attribute must be non-empty")
        try:
            re.compile(self.allowed)
        except re.error as error:
            raise ValueError(f"allowed is no regular expression: {error}") from error
        if not re.fullmatch("[A-Za-z0-9_-]{1,64}", self.otherwise):
            raise ValueError("otherwise must be 1 to 64 letters, digits, _ or -")


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What records must be like: all keys that are given must fit.

    `*`, `?` and `[abc]` are wildcards, and one of several values is enough.
    """

    signal: list[Literal["traces", "metrics", "logs"]] = []
    """What it is about: spans, metric points, log records."""
    service: list[str] = []
    """The service."""
    logger: list[str] = []
    """The logger, or one above it: `httpx` fits `httpx._client`, too. Log records only."""
    level: Annotated[Level, msgspec.Meta(extra={"case": "any"})] = ""
    """At least this level. Log records only."""
    event: list[str] = []
    """The event name; `*` is any event. Log records only."""
    attributes: dict[str, list[str]] = {}
    """Attributes of the record by name; a name may have wildcards, too. `*` is any value; numbers
    and booleans fit by their JSON text (`500`, `true`)."""
    resource: dict[str, list[str]] = {}
    """Attributes of the resource, in the same way."""


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of its own for some of the records: an item of `routes`."""

    path: str
    """The file."""
    match: list[Match] = []
    """Records that one of these fits are taken; without any, all are."""
    unless: list[Match] = []
    """Records that one of these fits are left out."""
    format: Literal["", "json", "text", "logfmt", "otlp_json", "otlp_proto", "proto"] = ""
    """As `format` of the exporter, which counts when this is empty."""
    rotation: OnRequest[Rotation] = None
    """As `rotation` of the exporter, which counts when this is absent."""
    compression: Compression = ""
    """As `compression` of the exporter, which counts when this is empty."""

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        if not self.path:
            raise ValueError("path must be non-empty")
        if "*" in self.path:
            raise ValueError('a route has one file: take the "*" out of its path')


def path_problems(path: str, group_by: GroupBy | None, routes: list[Route]) -> list[str]:
    """What is wrong with the paths of an exporter, taken together."""
    found = []
    if not path and not routes:
        found.append("path must be non-empty")
    if not path and group_by is not None:
        found.append("path must be non-empty when group_by is enabled")
    stars = path.count("*")
    if path and group_by is not None and (stars != 1 or path.startswith("*")):
        found.append('path must contain exactly one "*", and not begin with it, for group_by')
    if stars and group_by is None:
        found.append('path has a "*" for a resource attribute, but group_by is not enabled')
    if group_by is not None and stars == 1 and ".." in path.split("/"):
        found.append('path must not contain ".." when group_by is enabled')
    seen = {os.path.abspath(path): "path"} if path else {}  # noqa: PTH100 - text, nothing is looked up
    for index, route in enumerate(routes):
        whole = os.path.abspath(route.path)  # noqa: PTH100 - text, nothing is looked up
        if whole in seen:
            found.append(
                f"routes[{index}].path is the file of {seen[whole]}, too: give each file once; "
                "its match may have several conditions"
            )
        seen.setdefault(whole, f"routes[{index}]")
    return found


class FileSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the file exporter."""

    path: str = ""
    """The file. It is appended to, never truncated; symbolic links are not followed. With
    `routes` it takes what no route takes, and may be left out."""
    format: Format = "json"
    """`json`: one document per line, the shape that stores and answers have. `text`, `logfmt`:
    lines for people. `otlp_json`: one OTLP/JSON export request per line, what the OpenTelemetry
    Collector calls `json`. `otlp_proto`, also `proto`: the requests in protobuf, each behind
    its length."""
    rotation: OnRequest[Rotation] = None
    """When the file is put aside and a new one begun; off until the key is there."""
    compression: Compression = ""
    """`gzip` or `zstd`: of files that were put aside, in the background."""
    compression_params: CompressionParams | None = None
    """How hard to compress."""
    routes: list[Route] = []
    """Files of their own for some of the records. A record goes to every route that takes it."""
    group_by: GroupBy | None = None
    """A file for each value of a resource attribute, which takes the place of the `*` in
    `path`."""
    fsync: Literal["batch", "interval", "never"] = "batch"
    """When data is forced to disk: before each answer (`batch`), every `flush_interval`
    (`interval`), or when the system likes (`never`). The last two can lose acknowledged data in
    a power cut."""
    flush_interval: Duration = Duration(1.0)
    """How often `fsync: interval` forces data to disk."""
    append: bool = True
    """Only `true`: starting never deletes what was acknowledged."""
    encoding: str = ""
    """Only empty: there are no encoding extensions; `format` says what stands in a file."""
    create_directory: bool = False
    """Make the folder of `path` and of each route when it is missing."""
    directory_permissions: str = "0750"
    """Mode of the folders made, in octal digits."""
    sending_queue: OnRequest[SendingQueue] = None
    """A queue in front of this exporter, see "Delivery"; off until the key is there."""
    retry_on_failure: OnRequest[RetryOnFailure] = None
    """How the queue tries again, see "Delivery"."""

    def __post_init__(self) -> None:
        """Check what the types cannot say."""
        for problem in path_problems(self.path, self.group_by, self.routes):
            raise ValueError(problem)
        if not self.append:
            raise ValueError(
                "'append: false' would delete acknowledged data at every start; "
                "remove the key, and delete the file yourself when you want it empty"
            )
        if self.encoding:
            raise ValueError(
                f'encoding "{self.encoding}" needs an extension that does not exist here; '
                "use format: otlp_json, otlp_proto, json, text or logfmt"
            )
        if not re.fullmatch("0?[0-7]{3}", self.directory_permissions):
            raise ValueError(
                f'directory_permissions "{self.directory_permissions}" is not an octal mode; '
                'write it in quotes, like "0750"'
            )
        if self.flush_interval <= 0:
            raise ValueError("flush_interval must be larger than zero")
        level = self.compression_params.level if self.compression_params else 0
        methods = {self.compression, *(each.compression for each in self.routes)}
        strongest = min(STRONGEST[each] for each in methods & set(STRONGEST) or STRONGEST)
        if not 0 <= level <= strongest:
            raise ValueError(f"compression_params.level must be 0 to {strongest}, found {level}")
