"""Real servers for the tests: a launcher for each, on 127.0.0.1, started and stopped by the tests.

`server.py` is the frame (ports, start, whose socket is it, stop), `lineup.py` shares servers
between tests and keeps what could not take part, `shared_ray.py` holds the Ray that runs join,
`processes.py` finds the processes of a run, and each other module starts one server.  What has to
be built goes once into a cache folder outside the tree.
"""
