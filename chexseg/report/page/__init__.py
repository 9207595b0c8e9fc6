"""One page of all that a study has, and the files beside it."""
