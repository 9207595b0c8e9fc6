"""Networks and losses: plain PyTorch, without files or Ray."""
