"""A finished dataset goes elsewhere: backups, and the way back."""
