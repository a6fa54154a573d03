"""What every layer stands on.

Storage and its errors, retries, credentials, client libraries, and the model that the
sections of the job file are made from.  Nothing here knows a source or a target.
"""
