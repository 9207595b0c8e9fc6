"""Check that image files store every pixel that their headers promise; decoders only warn."""
