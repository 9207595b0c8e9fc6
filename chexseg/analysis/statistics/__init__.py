"""IoU, intervals, tests and the arms of a study."""
