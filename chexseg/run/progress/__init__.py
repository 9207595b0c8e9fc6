"""The progress of a run: collected from its workers, shown in the driver, kept in the store."""
