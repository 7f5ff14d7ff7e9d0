"""Input validation; it knows nothing of snapshots, commands or terminals."""
