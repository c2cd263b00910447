"""What is checked: what comes in, and what may leave."""
