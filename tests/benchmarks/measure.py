"""How we measure: interleaved rounds, so that a noisy second hits all sides, and the best of each."""

import time
from collections.abc import Callable
from typing import Any


def best_of(rounds: int, **sides: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the best round of each side; the sides take turns."""
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def result(
    case: str,
    value: float,
    unit: str,
    *,
    peer: str = "",
    peer_value: float | None = None,
    ratio_at_least: float | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
    more_is_better: bool = False,
) -> dict[str, Any]:
    """One line: our value, the peer's, the ratio in our favour, and whether the budget holds."""
    line: dict[str, Any] = {"case": case, "value": round(value, 3), "unit": unit}
    if peer_value is not None:
        ratio = value / peer_value if more_is_better else peer_value / value
        line |= {"peer": peer, "peer_value": round(peer_value, 3), "ratio": round(ratio, 2)}
        if ratio_at_least is not None:
            line |= {"budget": f"ratio >= {ratio_at_least}", "within": ratio >= ratio_at_least}
    if at_most is not None:
        line |= {"budget": f"<= {at_most} {unit}", "within": value <= at_most}
    if at_least is not None:
        line |= {"budget": f">= {at_least} {unit}", "within": value >= at_least}
    return line
