"""The dataset and what stands beside it: ledger, books, receipts, commit, lease."""
