"""The paper's figures and the graph of a study's stage runs."""
