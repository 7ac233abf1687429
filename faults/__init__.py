"""Faults on purpose: what is lost, let in, or told wrongly, counted and held against goals."""
