"""Names and addresses: sentences written by hand, and what the pass finds in them."""
