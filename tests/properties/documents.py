"""Strategies for documents of any shape, and the test of an error line."""

from __future__ import annotations

from hypothesis import strategies as st

from chexseg.data import strict_json

#: Numbers at the ends of what parsers, floats and integers of 32 and 64 bits hold.
EXTREMES = (0, -1, 2**31, 2**32, 2**63, 2**64, 10**308, 10**400, 1e308, 5e-324, -0.0)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from(EXTREMES))
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=10)),
    lambda parts: st.one_of(
        st.lists(parts, max_size=3), st.dictionaries(st.text(max_size=5), parts, max_size=3)
    ),
    max_leaves=6,
)


def one_line(error: object, begin: str = "") -> bool:
    """Return whether an error is one line of printable characters that begins as given."""
    text = str(error)
    return bool(text) and text.startswith(begin) and strict_json.is_one_line(text)
