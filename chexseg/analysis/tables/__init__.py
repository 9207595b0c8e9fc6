"""The paper's tables as rows and as text."""
