"""IoU, intervals and tests."""
