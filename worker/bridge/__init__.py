"""Verdicts to systems that speak no Redis: one delivery core, and a thin transport for each protocol."""
