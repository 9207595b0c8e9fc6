"""The paper's figures and the graph of a study's stages: rows, then drawings."""
