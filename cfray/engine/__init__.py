"""Everything that knows Ray: the cluster, tasks, actors, the shared budget of requests, signals.

No other folder imports ray.  Functions that run in a worker import it inside, so that a
command that only looks at a target starts without it.
"""
