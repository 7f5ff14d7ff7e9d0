"""Where guard meets other tools: pre-commit, coding agents, CI."""
