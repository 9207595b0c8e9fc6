"""Tests of chexseg.plan.checks."""
