"""The ContextFrame schema: columns, identities, digests of rows."""
