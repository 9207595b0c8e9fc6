"""Read what a report shows from the files of results."""
