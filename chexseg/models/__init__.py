"""Networks and losses in plain PyTorch, and their weights; without Ray."""
