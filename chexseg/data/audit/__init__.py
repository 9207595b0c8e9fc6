"""The report of `chexseg data check`: faults, oddities and shortcuts of a data set."""
