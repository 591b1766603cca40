"""
Which log records may contain a text: an index of all runs of three characters in their messages.

An FTS5 table with the trigram tokenizer, without content and without positions: about a tenth of
what the records take. It is never asked for an answer, only for candidates, which `base.matches`
looks at; so the store answers as one without the index does. The rules for that:

- Characters are folded by us, one for one, so that any two that `re.IGNORECASE` takes for the same
  become the same. SQLite's own folding knows fewer.
- Of a long message only the beginning is indexed; it carries a mark that makes it a candidate always.
- Indexing is maintenance, after the commit, so that no write waits for it. `text_index.last` says up to
  which row it got; what lies behind is a candidate. An older file is indexed the same way.
- The stamp in `text_index` says what the index was made with. Another one (the Unicode tables of
  another Python; a VACUUM, which may give rows new numbers) makes readers ignore it until the
  collector has made it again.
- Numbers of deleted rows may be used again, so a deletion never leaves `last` behind the last row.

A text of less than three characters, or one that very many records contain, is looked for by
walking from the newest or oldest record, which finds the first page of a common text at once.
"""

import sqlite3
import unicodedata
from collections.abc import Iterable
from typing import Final

import msgspec

from collector.stores.sqlite.schema import LOGS

TABLE: Final = "messages"
STATE: Final = "text_index"

CANDIDATES: Final = (
    f"rowid IN (SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH ? UNION ALL"  # noqa: S608 - constants
    f" SELECT rowid FROM {LOGS} WHERE rowid > (SELECT last FROM {STATE}))"
)
"""The condition on `logs`; its parameter is what `expression` made."""

STEP_ROWS: Final = 1000
"""Messages that one step indexes."""

_FORMAT: Final = 1
_GRAM: Final = 3
_MOST_GRAMS: Final = 8
_MOST_FOUND: Final = 20_000
_MOST_WAITING: Final = 100_000
_LONG: Final = 4096
_MARK: Final = "\x02\x03\x02"
_KNOWN: Final = 8192
_OLDEST: Final = (3, 34)


class _Message(msgspec.Struct):
    message: str = ""


_message: Final = msgspec.json.Decoder(_Message)


class _Folding(dict[int, str]):
    """A character's code -> what stands for all that equal it, as `str.translate` asks for it."""

    def __missing__(self, code: int) -> str:
        found = chr(code).lower()[0].upper()[0].lower()[0]
        if len(self) < _KNOWN:
            self[code] = found
        return found


_folding: Final = _Folding({0: "\u2400"})  # FTS5 stops at a NUL


def fold(text: str) -> str:
    """A text as it is indexed, character for character."""
    if text.isascii() and "\0" not in text:
        return text.lower()
    return text.translate(_folding)


def expression(text: str) -> str | None:
    """What FTS5 is asked for the messages that may contain a text; None when it cannot help."""
    folded = fold(text)
    last = len(folded) - _GRAM
    if last < 0:
        return None
    places = {last * part // (_MOST_GRAMS - 1) for part in range(_MOST_GRAMS)}
    grams = [folded[place : place + _GRAM].replace('"', '""') for place in sorted(places)]
    quoted = [f'"{gram}"' for gram in grams]
    return f'({" AND ".join(quoted)}) OR "{_MARK}"'


def condition(connection: sqlite3.Connection, text: str) -> str | None:
    """
    The parameter of `CANDIDATES`; None when walking is better, or there is no index to use.

    Args:
        connection: in a transaction, so that the index is the same when the question is asked.
        text: what to look for.
    """
    wanted = expression(text)
    if wanted is None:
        return None
    try:
        state = connection.execute(f"SELECT last, stamp FROM {STATE}").fetchone()  # noqa: S608 - constants
        if state is None or state[1] != _stamp(connection):
            return None
        for sql, value, most in (
            (f"SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH ?", wanted, _MOST_FOUND),  # noqa: S608 - constants
            (f"SELECT rowid FROM {LOGS} WHERE rowid > ?", state[0], _MOST_WAITING),  # noqa: S608 - constants
        ):
            sql = f"SELECT count(*) FROM ({sql} LIMIT ?)"  # noqa: PLW2901, S608 - constants
            if connection.execute(sql, (value, most + 1)).fetchone()[0] > most:
                return None
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname == "SQLITE_INTERRUPT":
            raise
        return None  # no index, no FTS5, or a damaged index
    return wanted


def _stamp(connection: sqlite3.Connection) -> str:
    (schema,) = connection.execute("PRAGMA schema_version").fetchone()
    return f"{_FORMAT} {unicodedata.unidata_version} {schema}"


class Texts:
    """
    The writer's side of the index.

    Args:
        wanted: whether there is to be one; None leaves it as it is.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._wanted = wanted

    def step(self, connection: sqlite3.Connection) -> bool:
        """Index some messages; whether there are more."""
        if self._wanted is None or not _can(connection):
            return False
        connection.execute("BEGIN IMMEDIATE")
        more = self._indexed(connection) if self._prepared(connection) else False
        connection.execute("COMMIT")
        return more

    def there(self, connection: sqlite3.Connection) -> bool:
        """Whether the file has an index, wanted or not."""
        return self._state(connection) is not None

    def forget(self, connection: sqlite3.Connection, found: Iterable[tuple[int, str]]) -> list[int]:
        """
        Take rows out of the index; call it in the transaction that deletes them.

        Args:
            connection: of the writer.
            found: the rows: number and document.

        Returns:
            Their numbers.
        """
        messages = [(number, _indexable(json)) for number, json in found]
        state = self._state(connection)
        if state is not None and _can(connection):
            connection.executemany(
                f"INSERT INTO {TABLE} ({TABLE}, rowid, message) VALUES ('delete', ?, ?)",  # noqa: S608 - constants
                [message for message in messages if message[0] <= state[0]],
            )
        return [number for number, _ in messages]

    def settle(self, connection: sqlite3.Connection) -> None:
        """After rows are gone: the numbers behind the last one will be given again."""
        if self.there(connection):
            connection.execute(
                f"UPDATE {STATE} SET last ="  # noqa: S608 - constants
                f" min(last, (SELECT coalesce(max(rowid), 0) FROM {LOGS}))"
            )

    def _state(self, connection: sqlite3.Connection) -> tuple[int, str] | None:
        (there,) = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE name = ?", (STATE,)
        ).fetchone()
        if not there:
            return None
        found: tuple[int, str] | None = connection.execute(
            f"SELECT last, stamp FROM {STATE}"  # noqa: S608 - constants
        ).fetchone()
        return found

    def _prepared(self, connection: sqlite3.Connection) -> bool:
        """Make the index, make it again, or take it away; whether it is there."""
        state = self._state(connection)
        if self._wanted and state is not None and state[1] == _stamp(connection):
            return True
        if state is not None:
            connection.execute(f"DROP TABLE {STATE}")
            connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        if not self._wanted:
            return False
        connection.execute(
            f"CREATE VIRTUAL TABLE {TABLE} USING fts5 (message, content='', detail=none,"
            " columnsize=0, tokenize='trigram case_sensitive 1')"
        )
        connection.execute(f"CREATE TABLE {STATE} (last INTEGER NOT NULL, stamp TEXT NOT NULL)")
        connection.execute(
            f"INSERT INTO {STATE} VALUES (0, ?)",  # noqa: S608 - constants
            (_stamp(connection),),
        )
        return True

    def _indexed(self, connection: sqlite3.Connection) -> bool:
        found = connection.execute(
            f"SELECT rowid, document FROM {LOGS} WHERE rowid > (SELECT last FROM {STATE})"  # noqa: S608 - constants
            f" ORDER BY rowid LIMIT {STEP_ROWS}"
        )
        messages = [(number, _indexable(json)) for number, json in found]
        if messages:
            sql = f"INSERT INTO {TABLE} (rowid, message) VALUES (?, ?)"  # noqa: S608 - constants
            connection.executemany(sql, messages)
            connection.execute(f"UPDATE {STATE} SET last = ?", messages[-1][:1])  # noqa: S608 - constants
        return len(messages) == STEP_ROWS


def _indexable(json: str) -> str:
    """The message of a document as it is indexed."""
    try:
        message = _message.decode(json).message
    except msgspec.ValidationError:
        return ""  # a message that is no text matches nothing
    if len(message) > _LONG:
        return fold(message[:_LONG]) + _MARK
    return fold(message)


def _can(connection: sqlite3.Connection) -> bool:
    """Whether this SQLite has what the index needs."""
    if sqlite3.sqlite_version_info < _OLDEST:
        return False
    sql = "SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'"
    (found,) = connection.execute(sql).fetchone()
    return bool(found)
