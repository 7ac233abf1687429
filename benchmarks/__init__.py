"""Ratios of CPU time, each taken within one run on one machine: ``make bench``."""
