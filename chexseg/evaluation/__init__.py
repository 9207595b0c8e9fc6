"""CheXlocalize's published protocol on mask files."""
