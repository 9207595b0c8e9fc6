"""Selection and order of the training images."""
