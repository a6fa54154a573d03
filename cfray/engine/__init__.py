"""Everything that knows Ray: the cluster, tasks, actors, the shared budget of requests, signals."""
