"""The self-contained HTML page of a study."""
