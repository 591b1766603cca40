"""
The files of one exporter as targets, and a batch cut into what goes to each of them.

The rules of a file (path, format, rotation) come from its route where that says something, else
from the exporter. A target that takes everything gets the batch as it is, without documents being
made and sorted first.
"""

import os
from collections.abc import Callable, Iterator

from collector.documents.build import Document, documents
from collector.exporters.file.config import FileSettings, Route
from collector.exporters.file.format import encoded
from collector.exporters.file.paths import Pattern
from collector.exporters.file.rotation import Keeping
from collector.exporters.file.routes import Router
from collector.exporters.file.writers import Groups, Piece, Target
from collector.model import Batch
from collector.otlp import count


class Sorter:
    """
    Where the records of an exporter go.

    Args:
        config: of the exporter.
        refused: called when a value of `group_by` gets no file.
    """

    def __init__(self, config: FileSettings, refused: Callable[[], None]) -> None:
        self.taken = frozenset(os.path.abspath(each.path) for each in config.routes)  # noqa: PTH100
        """Paths of routes, which no group may have."""
        self._router = Router(config.routes)
        self._routes = [Target(keeping(config, route)) for route in config.routes]
        self._rest: Target | None = None
        """Where records go that no route takes."""
        if config.path:
            rest = keeping(config)
            by = config.group_by
            groups = None if by is None else Groups(by, rest.pattern, self.taken, refused)
            self._rest = Target(rest, groups)

    def targets(self) -> Iterator[Target]:
        """All of them, the one of the exporter's own path first."""
        if self._rest is not None:
            yield self._rest
        yield from self._routes

    def pieces(self, batch: Batch) -> tuple[list[Piece], int]:
        """What goes where, and how many records no target takes."""
        rest = self._rest
        if not count(batch.signal, batch.message):
            return [], 0
        if not self._routes and rest is not None and rest.groups is None:
            style = rest.keeping.format
            found = None if style.startswith("otlp") else documents(batch)
            return _filled([Piece(rest, "", encoded(style, batch, found))]), 0
        everything = documents(batch)
        sorted_out: dict[tuple[int, str], list[Document]] = {}
        lost = 0
        for document in everything:
            routes = self._router.of(document, batch.signal)
            for index in routes:
                sorted_out.setdefault((index, ""), []).append(document)
            if routes:
                continue
            if rest is None:
                lost += 1
                continue
            group = rest.groups.of(document) if rest.groups is not None else ""
            sorted_out.setdefault((-1, group), []).append(document)
        pieces = []
        for (index, group), part in sorted_out.items():
            target = rest if index < 0 else self._routes[index]
            if target is not None:
                style = target.keeping.format
                whole = style.startswith("otlp") and len(part) == len(everything)
                pieces.append(Piece(target, group, encoded(style, batch, None if whole else part)))
        return _filled(pieces), lost


def _filled(pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if piece.data]


def keeping(config: FileSettings, route: Route | None = None) -> Keeping:
    """The rules of a path: those of the route, else the exporter's."""
    style = (route.format if route else "") or config.format
    compression = (route.compression if route else "") or config.compression
    return Keeping(
        pattern=Pattern(route.path if route else config.path),
        format="otlp_proto" if style == "proto" else style,
        rotation=(route.rotation if route else None) or config.rotation,
        compression="" if compression == "none" else compression,
        level=config.compression_params.level if config.compression_params else 0,
    )
