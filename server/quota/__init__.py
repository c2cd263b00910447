"""How much: what each principal may use, what they have used, and what it costs."""
