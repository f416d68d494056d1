"""Losses: functions of (x_hat, x), or of their shared spectra, that return one unweighted scalar."""
