"""What the server can do for its agents: tools, where they come from, and the loop that runs them."""
