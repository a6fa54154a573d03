"""One file a stage, named by its verb; the straight line is in pipeline.py."""
