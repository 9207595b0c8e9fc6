"""How p becomes the probability of an expert sample; without torch, so that planning a study needs none."""

from __future__ import annotations

from chexseg.errors import UserError

RULES = ("exact", "official")


def effective_probability(p: float, rule: str = "exact") -> float:
    """The probability with which a sample really is an expert one.

    ``exact`` is Bernoulli(p). ``official`` is the authors' published rule: an integer k of 1..10 is drawn and the sample is
    an expert one where ``k * 0.1 <= p`` in floating point, which makes 0.3, 0.6, 0.7 and 0.85 really 0.2, 0.5, 0.6 and 0.8.
    """
    if not 0 <= p <= 1:
        raise UserError(f"labels.p: found {p}; allowed: 0 to 1")
    if rule == "exact":
        return float(p)
    if rule == "official":
        return sum(k * 0.1 <= p for k in range(1, 11)) / 10
    raise UserError(f"labels.mixing: found {rule!r}; allowed: {', '.join(RULES)}")
