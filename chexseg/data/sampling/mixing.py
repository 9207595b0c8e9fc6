"""The probability of an expert sample; free of torch, so that planning a study doesn't need it."""

from __future__ import annotations

from chexseg.errors import UserError

RULES = ("exact", "official", "published")


def effective_probability(p: float, rule: str = "exact") -> float:
    """Return the probability that a sample is an expert sample.

    ``exact`` is Bernoulli(p). ``official`` and ``published`` have the probability of the authors'
    published code: an integer k of 1..10 is drawn, and the sample is an expert sample if
    ``k * 0.1 <= p``. In floating point this turns 0.3, 0.6, 0.7 and 0.85 into 0.2, 0.5, 0.6 and
    0.8. The two differ in which images are drawn (`data.sampling.mixture`).
    """
    if not 0 <= p <= 1:
        raise UserError(f"labels.p: found {p}; expected 0 to 1")
    if rule == "exact":
        return float(p)
    if rule in ("official", "published"):
        return sum(k * 0.1 <= p for k in range(1, 11)) / 10
    raise UserError(f"labels.mixing: found {rule!r}; allowed: {', '.join(RULES)}")
