"""What every layer stands on: storage, retries, credentials, a vendor's client, models of the job file."""
