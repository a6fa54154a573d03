"""The job file: its keys and defaults, how it is read, what a resume must agree on."""
