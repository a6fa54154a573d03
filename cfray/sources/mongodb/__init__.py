"""MongoDB: a live deployment, or files that mongodump and mongoexport wrote."""
