"""Regular expressions from a configuration: which are taken, and what hostile text costs."""

import pytest

from collector.processors.ottl.regex import Budget, TooSlow, compiled


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+$",
        r"^(\w+\s?)*$",
        r"(a|aa)+$",
        r"(x+x+)+y",
        r"foo(?:[^a]|\d)+bar$",
        r"(.*)*z",
        r"a*a*a*a*b",
    ],
)
def test_b53_exploding_patterns_are_refused(pattern):
    """B53: what takes exponential time is found by a trial when the configuration is read."""
    with pytest.raises(ValueError, match="is too slow on some texts; avoid repeats inside"):
        compiled(pattern)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", 'pattern "(" is no regular expression: missing ), unterminated subpattern'),
        ("[[:alpha:]]", "is no regular expression: Possible nested set"),
        (r"(?P<a>.)x(?P=a)", "refers back to a group"),
        (r"((.))\2", "refers back to a group"),
        ("a" * 1001, "is longer than 1000 characters"),
        ("a{99999999999999999999}", "is no regular expression"),
    ],
)
def test_unusable_patterns_are_refused(pattern, text):
    """A pattern that cannot be used says why."""
    with pytest.raises(ValueError) as caught:
        compiled(pattern)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "linear"),
    [
        ("secret", True),
        (r"4[0-9]{12}(?:[0-9]{3})?", True),
        (r"^/health", True),
        (r"(?i)password\s*[=:]\s*\S+", True),
        (r"[\w.+-]+@[\w-]+\.[\w.-]+", False),
        (r"\d+-\d+-\d+", False),
        (r".*token.*", False),
    ],
)
def test_usual_patterns_are_taken_and_sorted(pattern, linear):
    """Card numbers, addresses and key names pass; those that can be quadratic are watched."""
    assert compiled(pattern).linear is linear


def stars(found):
    return "*" * len(found)


def test_long_texts_are_masked_across_slices():
    """A match is masked wherever it lies, also on the border of two slices."""
    pattern = compiled(r"[\w.+-]+@[\w-]+\.[a-z]+")
    for place in (0, 2040, 4090, 6100, 9980):
        text = " " * place + "someone@example.com" + " " * (10_000 - place)
        masked = " " * place + "*" * 19 + " " * (10_000 - place)
        assert pattern.replace(text, stars, Budget()) == masked
        assert pattern.found_in(text, Budget())
    assert pattern.replace("", stars, Budget()) == ""


def test_many_matches_in_a_long_text_are_masked_one_by_one():
    """Slices overlap: what is found in two of them is masked once, and nothing between them."""
    pattern = compiled(r"[\w.+-]+@[\w-]+\.[a-z]+")
    found = pattern.replace("a.b@example.com, hello; " * 1000, stars, Budget())
    assert found == (stars("a.b@example.com") + ", hello; ") * 1000


def test_search_says_whether_there_is_a_match():
    """Empty and other texts have none."""
    pattern = compiled(r"[\w.+-]+@[\w-]+\.[a-z]+")
    assert pattern.found_in("", Budget()) is False
    assert compiled(".*a?.*b?").found_in("", Budget()) is True
    assert pattern.found_in("nobody", Budget()) is False


def test_time_of_a_batch_is_bounded():
    """B53: hostile text uses up the budget of its batch, and then nothing is searched any more."""
    pattern = compiled(r"\d+-\d+-\d+")
    budget = Budget()
    texts = ["1" * 4096] * 1000
    with pytest.raises(TooSlow):
        _ = [pattern.replace(text, stars, budget) for text in texts]
    with pytest.raises(TooSlow):
        pattern.found_in("short", budget)
    with pytest.raises(TooSlow):
        pattern.match("short", budget)
    assert compiled("short").found_in("short", budget)  # linear patterns need no budget


def test_empty_matches_mask_nothing():
    """A pattern that fits nothing at all leaves the text as it is."""
    assert compiled("x*").replace("abc", lambda _: "****", Budget()) == "abc"
