"""
What a call costs by the price table of the optional package `genai-prices`.

No table of our own: prices change weekly. The package is imported when the first price is asked
for, never before; without it, or for a model that it does not know, there is no cost, and one line
on stderr says why. It works from the prices that it ships with and opens no connection.
"""

from decimal import Decimal
from typing import Any

from telemetry import _diagnostics, _values
from telemetry._llm.totals import Usage


def work_out(usage: Usage, provider: str, model: str) -> None:
    """Give the usage its cost in USD, where it has tokens and no cost yet."""
    if usage.cost is None and (usage.input or usage.output):
        money = price(usage, provider=provider, model=model)
        if money is not None:
            usage.cost, usage.currency, usage.source = money, "USD", "local"


def price(usage: Usage, *, provider: str, model: str) -> Decimal | None:
    """The price in USD, or None."""
    try:
        import genai_prices  # noqa: PLC0415 - optional
    except ImportError:
        _diagnostics.say(
            "prices",
            "costs cannot be worked out without a price table: pip install genai-prices,"
            " or give the amount to cost()",
        )
        return None
    counts = {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_tokens": usage.cached,
        "cache_write_tokens": usage.cache_created,
    }
    try:
        given: Any = genai_prices.Usage(**{key: n for key, n in counts.items() if n is not None})
        found = genai_prices.calc_price(given, model_ref=model, provider_id=provider).total_price
        return Decimal(str(found))
    except Exception as error:
        text = f"no price for {provider}/{model}: {_values.text(error, 300)}"
        _diagnostics.say("prices", text)
        return None
