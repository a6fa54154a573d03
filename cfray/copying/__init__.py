"""The copy, the first line: every shard of the plan, from the source to a committed version.

No model runs here: the vectors that a job asks for are made after it, by the second line
(``embedding``), from the files that the copy wrote.

The life of a shard, and the files that each step leaves.  ``N`` is the shard's number,
``X`` the nonce of one writing of it, ``E`` the epoch of the run; folders without another
name stand in ``<target>.cfray/``.

1.  The driver lists the shards that are neither committed nor staged (``driver``) and
    hands them to Ray Data as the items of a line: a shard is one call of the line's body, from
    its first record to its receipt (``engine/lines``).  Before, it saves the source's session
    that they will be read under: ``sessions/ID.json``.
2.  The worker counts its start durably: ``scratch/starts-E/N/0``, ``1``, ``2``.  A shard
    whose workers died three times is given up (``shard``).
3.  It reads the source batch by batch (``read``), converts records, cuts their chunks
    (``conversion/steps``), and sets aside what does not fit.  The frames have the source's
    vectors, or zeros one wide where a model will make them.  Nothing is written; a transient
    error of the source begins this step again.
4.  Meanwhile Lance writes the frames: ``data/*.lance`` in the dataset, and blobs in a folder
    of the same name (``write``).  No version of the dataset names these files.
5.  The worker reads these files back for their digests, and refuses the shard if records
    read are not records staged plus records quarantined.
6.  It publishes the rows that did not fit: ``quarantine/N.X.jsonl``.
7.  It publishes the receipt: ``staged/N.X.json``.  Before this step the shard does not exist,
    after it the shard is staged: a later run adopts it without reading the source, unless
    the session that it was read under was lost.
8.  The driver commits receipts in groups (``driver``, ``target/commit``): a new version of
    the dataset whose manifest names the fragments and whose schema metadata has the ledger
    with the entry ``N``: first row id, rows, ``X``.  Only now can a reader see the rows.

Killed between any two steps, a shard is read anew (before 7), adopted (before 8), or
complete.  ``cfray cleanup`` removes the data files of step 4 that no receipt and no
version names, the receipts of step 7 whose shard was committed under another nonce, with
their quarantine files, and the counts of step 2.  The quarantine file of a worker that
was killed between 6 and 7 stays; no ledger entry names it, so no command reads it.

After the last shard, ``source_count`` asks the source for its count again (a commit with the
entry ``source-count`` that keeps the answer).  ``identities`` searches the uuids; where they
are many, in tasks that leave files in ``scratch/identities-E/`` until the search ends.  Then
``duplicates`` removes records that repeat an identity, and ``removal`` gathers what leaves with
them: their chunks, and what the books say of both (a commit with the entry ``duplicates``).
"""
