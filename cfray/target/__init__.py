"""The target: a Lance dataset, and the folder ``<target>.cfray/`` beside it.

``ledger``, ``commit`` and ``lease`` decide what is in the dataset and who may change it.
``state``, ``receipts``, ``receipt_files``, ``documents``, ``exact_vectors`` and ``maps``
are the files beside it; ``books`` and ``origins`` say what the receipts add up to and
which row is whose.
``conditional_put``, ``cleanup``, ``restart`` and ``search`` each serve one command.
"""
