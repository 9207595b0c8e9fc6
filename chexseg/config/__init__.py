"""Read study files, validate them and expand them into cells."""
