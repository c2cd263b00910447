"""OpenAI Conversations.

Bodies come in by :mod:`decode`; conversations go out by :mod:`encode`.
"""
