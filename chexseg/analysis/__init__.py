"""From pixel counts to statistics, claims and tidy tables: no drawing, no HTML."""
