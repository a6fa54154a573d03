"""What Elasticsearch and OpenSearch share: indices that are read at a point in time, in slices."""
