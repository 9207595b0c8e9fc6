"""Two studies or stores side by side."""
