"""Ingest: reference tiles in, embeddings in SQL, points in the vector store."""
