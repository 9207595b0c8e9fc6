"""The self-contained HTML page of one or more studies."""
