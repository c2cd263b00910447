"""The injection firewall: whether what comes in is an attempt to take the agent over.

Rules that are data (``rules.toml``) look at a text in several views, a linear model reads all of it, a
small local one what that suspects most, and a heavier detector is asked where all leave doubts.
"""
