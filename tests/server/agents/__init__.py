import pytest

# Its assertions are worth as much detail as any test module's.
pytest.register_assert_rewrite("tests.server.agents.agent_contract")
