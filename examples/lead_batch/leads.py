"""
Leads to classify: any number of them, the same ones in every run.

Half have a well-known name, three in ten a misspelt one, the rest a name that no list has.
"""

import random
from dataclasses import dataclass

NAMES = {  # language to write to a person in -> common family names
    "zulu": ("DLAMINI", "NKOSI", "MKHIZE", "NDLOVU", "BUTHELEZI", "KHUMALO"),
    "sotho": ("MOKOENA", "MOLEFE", "MOTAUNG", "MOFOKENG", "MOTALE", "TLADI"),
    "tsonga": ("BALOYI", "CHAUKE", "MABUNDA", "SHIVAMBU", "HLUNGWANI"),
    "venda": ("MUDAU", "MULAUDZI", "NETSHITENZHE", "TSHIVHASE"),
    "afrikaans": ("BOTHA", "PRETORIUS", "COETZEE", "VENTER", "JOUBERT"),
    "english": ("SMITH", "TAYLOR", "BROWN", "WRIGHT", "HARRISON"),
}
GIVEN = ("THABO", "LERATO", "ANNA", "PIETER", "GRACE", "SIPHO", "NALEDI", "JOHN", "MPHO", "ELSIE")
SYLLABLES = ("DI", "EM", "LU", "BA", "KWE", "ZO", "RI", "YA", "TE", "SHO", "FA", "GU")
VOWELS = "AEIOU"


@dataclass(frozen=True)
class Lead:
    """Somebody to write to."""

    id: str
    company: str
    contact: str


def generate(count: int) -> list[Lead]:
    return [_lead(number) for number in range(1, count + 1)]


def _lead(number: int) -> Lead:
    dice = random.Random(number)
    share = number % 10
    name = dice.choice([name for names in NAMES.values() for name in names])
    if number % 97 == 0:
        name = ""  # nobody filled it in
    elif share >= 8:
        name = "".join(dice.choice(SYLLABLES) for _ in range(4))
    elif share >= 5:
        name = _misspelt(name, dice)
    contact = f"{dice.choice(GIVEN)} {name}" if name else ""
    return Lead(f"lead-{number:04}", f"Logistics {number}", contact)


def _misspelt(name: str, dice: random.Random) -> str:
    """One vowel is another one, and one letter is doubled: it sounds much the same."""
    places = [place for place, letter in enumerate(name) if letter in VOWELS and place]
    place = dice.choice(places)
    letters = list(name)
    letters[place] = dice.choice(VOWELS.replace(letters[place], ""))
    letters.append(letters[-1])
    return "".join(letters)
