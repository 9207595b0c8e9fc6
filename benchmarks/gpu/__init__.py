"""What one GPU does with chexseg's work: `run.sh` measures it and writes one Markdown table."""
