"""Results by key, in a directory or an object store."""
