"""Everything of Unbroken that meets the outside: doors, agents, policies, the process."""
