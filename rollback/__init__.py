"""The snapshot engine; it knows nothing of checks, commands or terminals."""
