"""What has changed at the source since it was copied: found, told, and brought into the target."""
