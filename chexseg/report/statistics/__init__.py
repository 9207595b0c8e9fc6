"""From counts to IoU, arms, intervals and tests."""
