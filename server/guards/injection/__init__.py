"""The injection firewall: whether what comes in is an attempt to take the agent over.

Rules that are data (``rules.toml``) look at a text in several views, a small local model looks at
its most suspicious windows, and a heavier detector is asked where both leave doubts.
"""
