"""Which redaction settings are refused at the start: invalid ones and patterns that can explode (B53)."""

import pytest

import telemetry
from telemetry import Redaction
from telemetry._config import settings as _settings
from telemetry._redaction import validate


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"(a+)+$",
            r"^(\w+\s?)*$",
            r"\d+-\d+-\d+",
            r"(a|b)*c",
            r"(a|a)+b",
            r"(a|aa){20}b",
            r"(\w+)\1",
        ),
        *(r".*x.*y z", r"\bfoo.*bar.*baz", r"(?:a?){30}a{30}", "a?" * 30 + "a{30}", r"(?:a*)*b"),
        *(
            r"(?=(a+)+$)x",
            r"x?\w+@y",
            r"([a-z]+\d*)+!",
            r"(?:(?:x{1,5}){1,5}){1,5}y",
            r"((a{0,9})+b)+",
        ),
    ],
)
def test_patterns_that_can_explode_are_refused(pattern):
    """By their structure, so that it does not depend on the machine."""
    with pytest.raises(ValueError, match=r"repeat|choice|back|ways|empty"):
        validate.check(pattern)


@pytest.mark.parametrize("pattern", ["[", "a*", "", "x" * 2000, "(?P<a>x", 5, r"\b"])
def test_invalid_patterns_are_refused(pattern):
    """Also those that match the empty text, which is everywhere."""
    with pytest.raises(ValueError, match=r"regular expression|empty"):
        validate.check(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            r"\bCUST-\d{6}\b",
            r"CUST-\d+",
            r"\bDE\d{20}\b",
            r"(?i)internal-[a-z0-9]+",
            r"key.*secret",
        ),
        *(
            r"\b[\w.]+@corp\.example\b",
            r"(?:\d{1,3}\.){3}\d{1,3}",
            r"\b\d+-\d+-\d+",
            "a|b",
            r"[^,]{3,9};",
        ),
        *(
            r"\w{1,64}@corp",
            r".{0,20}secret.{0,20}",
            r"(?<=id=)\d+",
            r"x(?:ab)+c",
            r"sv=\S+",
            r"x\d+?y",
        ),
    ],
)
def test_sound_patterns_pass(pattern):
    """Literals, bounded repeats, and long repeats that cannot give back to what follows."""
    validate.check(pattern)


def test_a_redaction_names_all_that_is_wrong_with_it():
    """Level, rules, modes, patterns and functions, each with the fix."""
    redaction = Redaction(
        level="loud",
        keys={"iban": "blur"},
        patterns={"p": "(a+)+", "email": "x"},
        modes={"nothing": "mask", "p": "burn"},
        rules=[None],
    )
    found = validate.problems(redaction)
    assert [text.split(":")[0] for text in found] == [
        "redaction level 'loud'",
        "redaction mode of 'nothing'",
        "redaction mode 'burn' of 'p'",
        "redaction mode 'blur' of 'iban'",
        "redaction pattern 'p'",
        "redaction pattern 'email'",
        "redaction rule None",
    ]
    with pytest.raises(telemetry.ConfigError) as caught:
        telemetry.configure(redaction=redaction)
    assert len(caught.value.problems) == 7


def test_variables_add_to_the_argument():
    """What code says and what the operator adds hold together."""
    environ = {
        "TELEMETRY_REDACTION_KEYS": "iban=hash, customer_name",
        "TELEMETRY_REDACTION_ALLOW_KEYS": "public_token",
        "TELEMETRY_REDACTION_PATTERNS": r'{"customer_no": "\\bCUST-[0-9]{6}\\b"}',
        "TELEMETRY_REDACTION_MODES": "email=hash,customer_no=drop",
    }
    given = Redaction(level="strict", keys=["nick"], modes={"wallet": "mask"}, rules=[str.upper])
    settings, problems = _settings.read({"redaction": given}, environ)
    assert problems == []
    assert settings.redacting() == Redaction(
        level="strict",
        keys={"nick": "mask", "iban": "hash", "customer_name": "mask"},
        allow_keys=("public_token",),
        patterns={"customer_no": r"\bCUST-[0-9]{6}\b"},
        modes={"wallet": "mask", "email": "hash", "customer_no": "drop"},
        rules=[str.upper],
    )


@pytest.mark.parametrize(
    ("text", "level"),
    [("on", "on"), ("OFF", "off"), ("strict", "strict"), ("false", "off"), ("1", "on")],
)
def test_the_level_is_a_word(text, level):
    """TELEMETRY_REDACTION, also as a flag."""
    settings, problems = _settings.read({}, {"TELEMETRY_REDACTION": text})
    assert (settings.redacting().level, problems) == (level, [])


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("TELEMETRY_REDACTION", "some"),
        ("TELEMETRY_REDACTION_KEYS", "iban=blur"),
        ("TELEMETRY_REDACTION_PATTERNS", "(a+)+"),
        ("TELEMETRY_REDACTION_PATTERNS", '{"p": "(a+)+"}'),
        ("TELEMETRY_REDACTION_PATTERNS", '["p"]'),
        ("TELEMETRY_REDACTION_MODES", "email"),
        ("TELEMETRY_REDACTION_MODES", "email=burn"),
        ("TELEMETRY_REDACTION_MODES", "nothing=mask"),
    ],
)
def test_a_bad_variable_is_a_problem_that_names_it(variable, text):
    """And nothing of it is used."""
    settings, (problem,) = _settings.read({}, {variable: text})
    assert problem.startswith(variable)
    assert settings.redacting() == Redaction(keys={})
