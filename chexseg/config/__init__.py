"""Study files: reading, validating and expanding them into cells."""
