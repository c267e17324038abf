from collections import Counter
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

import kernels
from changed import touched

ROOT = Path(__file__).resolve().parent.parent
TOGETHER = ('test_site.py', 'test_distributed.py', 'test_widget.py')  # what shares a fixture
FORKING = ('test_notebooks', 'test_widget', 'test_sweep', 'test_distributed', 'test_faults')  # kernels, or processes
FIRST = ('test_site.py', 'test_killed', '22_accel', '23_dual_gating', 'test_distributed.py', 'test_failing',
         '50_pretrain', 'test_in_pairs', 'test_interrupt', 'test_dask', '21_simprune', '42_where', '40_first',
         'test_kill_and')


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='the minutes-long tests too')
    parser.addoption('--changed', metavar='COMMIT', help='only what the difference from this commit can touch')


class Schedule(LoadScopeScheduling):
    "Every test goes to the process that is free, but tests that share something go to one."
    def _split_scope(self, nodeid):
        return next((p for p in TOGETHER if p in nodeid), nodeid)


def pytest_xdist_make_scheduler(config, log): return Schedule(config, log)


def pytest_collection_modifyitems(config, items):
    "Those that a change can touch, if asked; the long ones first, so that all processes end together."
    if rev := config.getoption('--changed'):
        kept = touched(items, rev)
        config.hook.pytest_deselected(items=[i for i in items if i not in kept])
        items[:] = kept
    items.sort(key=lambda i: next((n for n, part in enumerate(FIRST) if part in i.nodeid), len(FIRST)))
    for item in items:
        if 'slow' in item.keywords and not config.getoption('--slow'):
            item.add_marker(pytest.mark.skip(reason='slow: run with --slow'))


def pytest_collection_finish(session):
    asked = any(f in i.nodeid for i in session.items for f in FORKING)
    if asked and not session.config.option.collectonly: kernels.start()


def pytest_terminal_summary(terminalreporter):
    "Tables that tests record, and counts, summed over all tests that record them by one name."
    reports = [r for kind in terminalreporter.stats.values() for r in kind if getattr(r, 'when', '') == 'call']
    counts = {}
    for name, value in [p for r in reports for p in r.user_properties]:
        if isinstance(value, dict): counts[name] = counts.get(name, Counter()) + Counter(value)
        else: terminalreporter.write_line(value)
    for name, c in counts.items():
        terminalreporter.write_line(f'{name}: ' + ', '.join(f'{n} {what}' for what, n in c.items()))


@pytest.fixture
def root(): return ROOT
