"""Measure chexseg's work on one GPU: `run.sh` writes one Markdown table."""
