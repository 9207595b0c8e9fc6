"""Check what others may have written before it is used: JSON, torch's formats, and folders."""
