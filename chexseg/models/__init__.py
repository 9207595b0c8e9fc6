"""Networks and losses: plain PyTorch, no files, no Ray."""
