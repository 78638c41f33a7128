import pytest

pytest.register_assert_rewrite("search_contract")
