"""Small components of every kind, and a loader for YAML that is given as text."""

import enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from collector.config import InvalidConfig, load
from collector.model import Duration, ExporterId, OnRequest, Secret


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Tls(Struct):
    cert_file: str = ""
    """The certificate."""


class Grpc(Struct):
    endpoint: str = "localhost:4317"
    """Address to listen on."""
    tls: Tls | None = None
    """Encryption."""


class Protocols(Struct):
    grpc: OnRequest[Grpc] = None
    """OTLP over gRPC."""
    http: OnRequest[Grpc] = None
    """OTLP over HTTP."""


class Inlet:
    class Config(Struct):
        """The keys."""

        protocols: Protocols = Protocols()
        """What to listen to."""

    @staticmethod
    def check(config):
        if config.protocols.grpc is None and config.protocols.http is None:
            return ["must specify at least one protocol when using the OTLP receiver"]
        return []


class Queue(Struct):
    queue_size: int = 1000
    """How many requests wait."""

    def check(self):
        return [] if self.queue_size > 0 else ["`queue_size` must be positive"]


class Retry(Struct):
    enabled: bool = True
    """Whether to try again."""


class Level(enum.StrEnum):
    LOW = "low"
    HIGH = "high"


class Item(Struct):
    name: str
    """A name."""
    size: int = 1
    """A size."""


class Outlet:
    class Config(Struct):
        """The keys."""

        flag: bool = True
        """A switch."""
        count: int = 7
        """A number."""
        ratio: float = 0.5
        """A fraction."""
        text: str = "default"
        """A text."""
        maybe: str | None = None
        """A text that may be absent."""
        secret: Secret = Secret("")
        """Never shown."""
        timeout: Duration = Duration(5)
        """How long."""
        names: list[str] = msgspec.field(default_factory=lambda: ["a", "b"])
        """Names."""
        frozen: tuple[int, ...] = (1,)
        """Numbers."""
        labels: dict[str, str] = msgspec.field(default_factory=lambda: {"x": "y"})
        """Labels."""
        headers: dict[str, Secret] = {}
        """Headers."""
        anything: Any = None
        """Anything."""
        items: tuple[Item, ...] = ()
        """Items."""
        mode: Literal["basic", "normal"] = "basic"
        """One of two."""
        any_case: Annotated[Literal["basic", "normal"], msgspec.Meta(extra={"case": "any"})] = (
            "basic"
        )
        """One of two, in any case."""
        level: Level = Level.LOW
        """A level."""
        small: Annotated[int, msgspec.Meta(gt=0, le=10)] = 1
        """A small number."""
        either: int | str = 0
        """A number or a text."""
        on_request: OnRequest[Tls] = None
        """Off, or on by its key alone."""
        optional: Tls | None = None
        """Off, or on by a value."""
        sending_queue: Queue | None = msgspec.field(default_factory=Queue)
        """On, unless switched off."""
        retry: Retry | None = msgspec.field(default_factory=Retry)
        """On, with an `enabled` of its own."""
        plain: Tls = Tls()
        """Always on."""


class Step:
    class Config(Struct):
        """No keys."""


class Join:
    class Config(Struct):
        """No keys."""


class Watch:
    class Config(Struct):
        """The keys."""

        store: ExporterId | None = None
        """The store to ask."""
        other: ExporterId = ""
        """Another one."""


REGISTRY = {
    "receivers": {"otlp": f"{__name__}:Inlet"},
    "processors": {"step": f"{__name__}:Step"},
    "exporters": {"debug": f"{__name__}:Outlet", "mongodb": f"{__name__}:Outlet"},
    "connectors": {"join": f"{__name__}:Join"},
    "extensions": {"watch": f"{__name__}:Watch"},
}
GOOD = """\
receivers:
  otlp: {protocols: {grpc: }}
exporters:
  debug:
service:
  pipelines:
    traces: {receivers: [otlp], exporters: [debug]}
"""


class Loader:
    """Loads YAML texts as files; every answer is what a user would get."""

    good = GOOD
    outlet = f"{__name__}:Outlet"

    def __init__(self, folder):
        self.folder = folder

    def file(self, text, name="c.yaml"):
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def __call__(self, *texts, sets=(), environ=None, **options):
        files = [self.file(text, f"c{index or ''}.yaml") for index, text in enumerate(texts)]
        return load(files, sets, environ or {}, registry=REGISTRY, **options)

    def debug(self, body, environ=None):
        """The config of the exporter `debug` whose body is given as flow or block YAML."""
        return self(*self.with_debug(body), environ=environ).exporters["debug"].config

    def with_debug(self, body):
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        return [GOOD, f"exporters:\n  debug:\n{lines}\n"]

    def errors(self, *texts, **options):
        """Every problem, with the folder cut off."""
        with pytest.raises(InvalidConfig) as caught:
            self(*texts, **options)
        return [problem.replace(f"{self.folder}/", "") for problem in caught.value.problems]

    def debug_errors(self, body, environ=None):
        return self.errors(*self.with_debug(body), environ=environ)

    def report(self, *texts, **options):
        with pytest.raises(InvalidConfig) as caught:
            self(*texts, **options)
        return caught.value


@pytest.fixture
def loader(tmp_path):
    return Loader(tmp_path)
