"""
Which language to write to a lead in: by a list of names, else by their sound, else by asking.

Asking goes to two models, one after the other: an error of the first, no answer in time, or an
answer that it is not sure of makes the second a fallback. What says how long to wait (429 with a
Retry-After), and a failure of both, is left to the batch, which tries the lead again.
"""

import http.client
import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from leads import NAMES, Lead

from telemetry import get_logger, llm
from telemetry.batch import ItemContext, Skip

logger = get_logger("lead_batch.classify")

CANDIDATES = (("openai", "gpt-4o-mini"), ("anthropic", "claude-3-haiku"))
PRICES = {"gpt-4o-mini": (0.15e-6, 0.60e-6), "claude-3-haiku": (0.25e-6, 1.25e-6)}
"""USD per token read and written."""
SURE = 0.6
ANSWER_S = 0.5
PROMPT = (
    'In which language does one write to this person? Answer as JSON: {"language", "confidence"}.'
)
FINGERPRINT = ("rules-1", "soundex", PROMPT, *CANDIDATES)
"""When it changes, results of earlier runs do not count."""


@dataclass(frozen=True)
class Answer:
    """A language, and how it was found."""

    language: str
    method: str
    confidence: float


class ModelError(Exception):
    """The model answered with an error status."""

    def __init__(self, status: int, error: str, retry_after: str | None) -> None:
        super().__init__(f"{status} {error}")
        self.status_code = status
        self.retry_after = retry_after


class Classifier:
    """
    Classifies leads; called by the batch, in several threads at once.

    Args:
        url: of the models.
    """

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc

    def __call__(self, lead: Lead, ctx: ItemContext) -> Answer:
        """The handler of the batch."""
        if not lead.contact:
            raise Skip("nobody to write to")
        *_, name = lead.contact.split()
        answer = by_rule(name) or by_sound(name) or self.by_model(lead.contact, ctx)
        logger.debug(
            "lead classified",
            language=answer.language,
            method=answer.method,
            confidence=answer.confidence,
        )
        return answer

    def by_model(self, contact: str, ctx: ItemContext) -> Answer:
        """Ask one model after the other."""
        failure: Exception = LookupError("no model is sure")
        with llm.chain("language"):
            for provider, model in CANDIDATES:
                try:
                    with llm.call(provider=provider, model=model, temperature=0) as call:
                        answer = self._ask(call, provider, model, contact, ctx)
                except (ModelError, OSError) as error:
                    if isinstance(error, ModelError) and error.status_code < 500:
                        raise  # the same with every model, or a pause that we were asked for
                    failure = error
                    continue
                if answer.confidence >= SURE:
                    return answer
        raise failure

    def _ask(
        self, call: llm.Call, provider: str, model: str, contact: str, ctx: ItemContext
    ) -> Answer:
        messages = [{"role": "system", "content": PROMPT}, {"role": "user", "content": contact}]
        call.system(PROMPT)
        call.input(messages[1:])
        found = self._post({"provider": provider, "model": model, "messages": messages})
        used = found["usage"]
        per_input, per_output = PRICES[model]
        cost = used["input_tokens"] * per_input + used["output_tokens"] * per_output
        call.response(id=found["id"], model=found["model"])
        call.tokens(input=used["input_tokens"], output=used["output_tokens"])
        call.cost(cost, source="local")
        call.finish(found["finish_reason"])
        ctx.add_cost(cost, used["input_tokens"], used["output_tokens"])
        said = json.loads(found["content"])
        call.confidence(said["confidence"])
        if said["confidence"] < SURE:
            call.reject("low_confidence")
        return Answer(said["language"], "model", said["confidence"])

    def _post(self, request: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._address, timeout=ANSWER_S)
        try:
            connection.request("POST", "/v1/chat", json.dumps(request))
            response = connection.getresponse()
            found: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ModelError(response.status, found["error"], response.getheader("Retry-After"))
        return found


def by_rule(name: str) -> Answer | None:
    """A name that is on a list."""
    for language, names in NAMES.items():
        if name in names:
            return Answer(language, "rule", 1.0)
    logger.debug("rule failed", reason="not_on_a_list")
    return None


def by_sound(name: str) -> Answer | None:
    """A name that sounds like those of one language."""
    languages = SOUNDS[soundex(name)]
    if len(languages) == 1:
        return Answer(min(languages), "sound", 0.8)
    reason = "several_languages" if languages else "no_such_sound"
    logger.debug("sound failed", reason=reason, algorithm="soundex")
    return None


def soundex(name: str) -> str:
    """The first letter and the classes of the next three consonants."""
    code, before = name[0], CLASSES.get(name[0], "")
    for letter in name[1:]:
        known = CLASSES.get(letter, "")
        if known and known != before:
            code += known
        if letter not in "HW":
            before = known
    return code[:4].ljust(4, "0")


CLASSES = {
    letter: str(number)
    for number, letters in enumerate(("BFPV", "CGJKQSXZ", "DT", "L", "MN", "R"), start=1)
    for letter in letters
}
SOUNDS: defaultdict[str, set[str]] = defaultdict(set)
for _language, _names in NAMES.items():
    for _name in _names:
        SOUNDS[soundex(_name)].add(_language)
