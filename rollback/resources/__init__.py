"""Kinds of state that can be captured and put back, one a module."""
