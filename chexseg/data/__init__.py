"""What comes in, and what the stages hand to each other."""
