"""chexseg: studies of semi-supervised chest X-ray segmentation on Ray."""

__version__ = "0.1.0"
