"""One file a store; base.py says what a source is, files.py what file exports share."""
