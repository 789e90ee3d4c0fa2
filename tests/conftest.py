"""What the tests share: the folder of public data, and a seeded generator."""

from pathlib import Path

import hypothesis
import numpy as np
import pytest

# The same examples in each run; to look for others: pytest --hypothesis-profile default.
hypothesis.settings.register_profile("seeded", derandomize=True, print_blob=True)
hypothesis.settings.load_profile("seeded")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no folder of public data beside the checkout")
    return SHARED_DATA


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their argument: a gzip file holds the time, and all workers must agree."""
    return argname if isinstance(val, bytes) else None
