import os
import pytest
from pathlib import Path

import kernels

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault('EFFSSL_FIGURES', str(ROOT/'.pytest_cache'/'figures'))  # tests draw there, not over the committed ones
kernels.install()


def pytest_addoption(parser): parser.addoption('--slow', action='store_true', help='the minutes-long tests too')


def pytest_collection_modifyitems(config, items):
    if config.getoption('--slow'): return
    for item in items:
        if 'slow' in item.keywords: item.add_marker(pytest.mark.skip(reason='slow: run with --slow'))


@pytest.fixture
def root(): return ROOT
