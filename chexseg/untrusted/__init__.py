"""Check what others have made: JSON and torch's formats before a library reads them, folders."""
