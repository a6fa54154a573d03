"""PostgreSQL with pgvector: a live server, or files that COPY and pg_dump wrote."""
