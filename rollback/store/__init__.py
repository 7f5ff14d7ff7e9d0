"""The store: one catalog, packed small blobs, large blobs as files."""
