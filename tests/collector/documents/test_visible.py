"""Nothing in JSON that we print steers a terminal or hides text (R8, B72)."""

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from collector.documents.visible import visible_json, visible_text

HIDDEN = "\x7f\x80\x9b\x9f\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\U000e0041"
LETTERS = st.text(st.sampled_from(HIDDEN) | st.characters(codec="utf-8"), max_size=20)


def test_each_hidden_character_is_an_escape():
    """DEL, C1, separators, directions and tags; an emoji stays what it is."""
    assert (
        visible_text("a\x9b\u202e\U000e0041\U0001f600é")
        == "a\\u009b\\u202e\\udb40\\udc41\U0001f600é"
    )


@given(LETTERS)
def test_it_is_the_same_json(text):
    """What a parser reads is what it read before, and bytes become what text becomes."""
    raw = json.dumps({text: [text]}, ensure_ascii=False)
    shown = visible_text(raw)
    assert json.loads(shown) == {text: [text]}
    assert visible_json(raw.encode()).decode() == shown
    steering = {each for each in shown if unicodedata.category(each) == "Cc"}
    assert not steering
    assert not set(HIDDEN) & set(shown)
