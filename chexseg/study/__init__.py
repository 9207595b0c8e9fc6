"""From a study file to finished artifacts."""
