"""What every layer stands on.

Storage, retries, credentials, a vendor's client, models of the job file.
"""
