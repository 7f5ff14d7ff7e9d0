"""Draws each command's answer: one module a command, with `as_text` and `as_data`."""
