"""CheXlocalize's files scored by its protocol; no study is needed."""
