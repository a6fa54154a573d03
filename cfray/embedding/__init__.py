"""The second line: the vectors that a job asks for, made from the files that the copy wrote.

It needs no source.  ``migrate`` runs it after the copy, ``cfray embed`` on a finished target.

The life of a vector, and the files that each step leaves.  ``T`` is the name of the coming entry
of the ledger (``embed-0001``), ``J`` the job's fingerprint and ``M`` the map's id (16 digits of
each), ``P`` a piece, ``X`` a nonce, ``E`` the epoch of the run; folders without another name stand
in ``<target>.cfray/``.

1.  The copy has left the source's vectors in their own width, or zeros one wide.  The recipe in
    the dataset says ``keep``; the wanted recipe stands in ``plan.json`` (``pending`` tells whether
    it is still to be carried out).
2.  The driver learns what is to be learned (``learn``, ``learn_map``): tasks draw a sample of the
    target's documents (``sample``), the line embeds it, the gate judges a map.  Files:
    ``maps/SHA256.safetensors``, the pairs beside it, and the recipe in ``scratch/T-J.json``.
3.  The driver divides every fragment into pieces (``pieces``): physical rows of data files, so a
    piece reads the same however often it is read, and a later deletion voids nothing.
4.  Ray Data hands each piece to an actor (``line``).  The actor loads the model with its first
    piece (``model``) and leaves a mark: ``scratch/starts-E/embedding/loads/X``.
5.  The actor marks a range of rows before it begins it (``ranges``): in ``scratch/T-J-M/P/`` the
    file ``FIRST-ROWS.X.begun``.  Usually the whole piece is one range.  A range that an actor
    died over is halved by the next actor, down to the row that did it; that row is refused.
6.  It reads the rows, makes their new columns (``compute``, ``vectors``) and publishes them in the
    same folder: ``FIRST-ROWS.X.arrow``.  Rows that are deleted, and headers, have zeros.
7.  It publishes the receipt of the piece: ``scratch/T-J-M/receipts/P.X.json``.  Before this step
    the piece is computed anew, range by range; after it a later run adopts the piece.
8.  A task writes the new columns of a fragment, from the files that the receipts name, and hashes
    its rows as ``verify`` will (``join``): ``data/*.lance`` in the dataset.  No version of the
    dataset names this file.
9.  The driver publishes what was refused, ``quarantine/T.X.jsonl``, and then the receipt of all
    vectors, ``staged/T.X.json`` (``embed``).
10. The driver drops the index of the old vectors and commits (``swap``): a new version whose
    manifest names the new files for the columns, and deletes the rows that were refused and their
    chunks; its schema metadata has the recipe and the ledger with the entry ``T``.  Only now can a
    reader see the new vectors, and all of them at once.  Of a finished target the old headers
    leave in the same commit, and headers with the new centroids come in.
11. The files of the pieces are removed.  The old columns stay in their files, for the versions
    that refer to them.

Killed between any two steps, the same command goes on: what is learned, computed ranges and
pieces are kept (2, 6, 7), files of a join that no version names are written again and removed by
``cfray cleanup`` (8, 9).  Rows that join later (a replay, a repair) take the steps 4 to 7 as pieces
of frames (``joining_frames``).
"""
