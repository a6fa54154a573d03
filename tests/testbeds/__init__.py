"""Real servers for the tests: a launcher for each, on 127.0.0.1, started and stopped by the tests.

`server.py` is the frame (ports, start, whose socket is it, stop), `lineup.py` keeps what could not
take part, and each other module starts one server.  What has to be built goes once into a cache
folder outside the tree.
"""
