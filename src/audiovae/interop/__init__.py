"""Weights and configs of other toolkits, to ours and back: one table for each."""
