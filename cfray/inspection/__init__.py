"""``cfray inspect``: look at a source and draft the job file that moves it.

``source.draft`` is the way in.
"""
