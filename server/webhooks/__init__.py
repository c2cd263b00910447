"""Webhooks: others are told what happens, signed, at least once, in no promised order."""
