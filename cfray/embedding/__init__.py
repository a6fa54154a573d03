"""New vectors for the target: the embedding actors, what a run must learn, ``cfray embed``.

``reembed.py`` says in which steps ``cfray embed`` makes the vectors of a finished target anew.
"""
