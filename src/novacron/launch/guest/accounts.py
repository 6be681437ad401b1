"""The database that the demo guest may work on: a bank's accounts, the same bytes for the same version of this file.

Rows are what such rows are: names, places and words that repeat, numbers and references that do not.
"""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

ROWS: Final = 360_000  # about 94 MiB
NAME: Final = "accounts.db"
SEED: Final = 11
BALANCE: Final = 100_000
_FIRST: Final = ("Ada", "Bram", "Chloé", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kaya", "Lucía")
_LAST: Final = ("Abbott", "Bauer", "Costa", "Dubois", "Eriksen", "Farkas", "Grieg", "Haddad", "Ivanov", "Jansen", "Kim")
_STREETS: Final = ("Harbour Road", "Mill Lane", "Station Street", "Church Hill", "Long Acre", "Market Place")
_TOWNS: Final = ("Aarhus", "Bern", "Cork", "Delft", "Esbjerg", "Faro", "Ghent", "Haarlem", "Imola", "Jena", "Krems")
_WORDS: Final = (
    *("asked", "for", "a", "statement", "of", "the", "year", "letters", "by", "post", "only", "card", "replaced"),
    *("limit", "raised", "to", "account", "moved", "from", "branch", "reference", "checked", "with", "customer"),
)


def fill(path: Path, rows: int = ROWS) -> None:
    """Make the database at ``path``."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            PRAGMA page_size = 4096;
            PRAGMA journal_mode = OFF;
            CREATE TABLE account (id INTEGER PRIMARY KEY, text TEXT NOT NULL, mark INTEGER NOT NULL,
                                  balance INTEGER NOT NULL);
            CREATE TABLE transfer (id INTEGER PRIMARY KEY, source INTEGER NOT NULL, target INTEGER NOT NULL,
                                   amount INTEGER NOT NULL);
            """
        )
        with connection:
            connection.executemany("INSERT INTO account VALUES (?, ?, ?, ?)", _accounts(rows))


def mark(text: bytes) -> int:
    """What the guest finds again of a row's text: FNV-1a of 64 bits, without its sign."""
    value = 0xCBF2_9CE4_8422_2325
    for byte in text:
        value = (value ^ byte) * 0x100_0000_01B3 & 0xFFFF_FFFF_FFFF_FFFF
    return value & 0x7FFF_FFFF_FFFF_FFFF


def _accounts(rows: int) -> Iterator[tuple[int, str, int, int]]:
    draw = random.Random(SEED)  # noqa: S311 - content, no secret
    for number in range(1, rows + 1):
        text = _text(draw)
        yield number, text, mark(text.encode()), BALANCE


def _text(draw: random.Random) -> str:
    name = f"{draw.choice(_FIRST)} {draw.choice(_LAST)}"
    place = f"{draw.randrange(1, 300)} {draw.choice(_STREETS)}, {draw.randrange(10_000, 99_999)} {draw.choice(_TOWNS)}"
    iban = f"NC{draw.randrange(10**20):020d}"
    note = " ".join(draw.choices(_WORDS, k=draw.randrange(8, 40)))
    return f"{name}|{place}|{iban}|{draw.getrandbits(128):032x}|{note}"
