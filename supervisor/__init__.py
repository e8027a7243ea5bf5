"""Owns instances: one process tree per model, started, checked, leased out and stopped."""
