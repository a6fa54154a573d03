"""The names of a report's checks: the words by which other reports, pages and tests know them."""

#: The check whether the source has gone on; it fails for a target that is whole (exit code 7).
SOURCE_SINCE = "source since the plan"
#: The check that reads the source again and compares each record with the target.
AGAINST_SOURCE = "every record against the source"
#: The check how much of the true neighbours the vector index finds.
INDEX_RECALL = "recall of the vector index"
#: The check whether searches in the target find what searches in the source find.
PARITY = "search parity"
#: The check that compares some of the records with the source.
SAMPLE_AGAINST_SOURCE = "sampled records against the source"
#: The check whether the rows are those that a certificate was issued for.
CERTIFICATE = "certificate"
#: The checks of every report, whether they were made or not.
CHECKS = (
    "every shard committed",
    "every data file",
    "content of every shard",
    "types of every field",
    AGAINST_SOURCE,
    "index coverage",
    "index files",
    INDEX_RECALL,
    PARITY,
    CERTIFICATE,
    "source count",
    SOURCE_SINCE,
    "vectors as the job asks",
)
