"""Turn a study into the stage runs it needs: keys, cost, status, garbage."""
