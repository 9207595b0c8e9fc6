"""From a study to the stage runs it needs: keys, cost, status, garbage."""
