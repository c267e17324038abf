"Records expire with the code that made them, unless somebody says why not."
import json, os, shutil, subprocess, sys

import pytest

from changed import graph
from conftest import ROOT
from effssl.building import complete
from effssl.provenance import SOURCES, code_of, hashed, imports, read_changes, since
from effssl.recipes import recipe


def test_changes_are_said():
    "Of every module of every committed record whose code has changed since."
    changes = read_changes()
    unsaid = {m: path for path, r in hashed().items() for m, what in since(r, changes).items() if what == 'unsaid'}
    told = [f"{m}, by which {path} was made: python3 dev.py changed {m} --numbers same (or other) --why '…'"
            for m, path in unsaid.items()]
    assert not told, 'changed since, and nobody said what that does to numbers:\n' + '\n'.join(told)


def test_imports_are_those_of_the_house():
    "The same graph as `tests/changed.py` reads without the package."
    assert {m: {*imports(m)} for m in SOURCES} == graph()


@pytest.fixture
def copy(tmp_path):
    "The package and dev.py in another place, with one record made by them, and a function that runs Python there."
    shutil.copytree(ROOT/'effssl', tmp_path/'effssl', ignore=shutil.ignore_patterns('__pycache__'))
    for f in ('dev.py', 'settings.ini', 'setup.py', 'pyproject.toml'): shutil.copy(ROOT/f, tmp_path)
    (tmp_path/'results').mkdir()
    made = dict(id='a', started='2026', code=code_of(complete(recipe(dataset='digits'))), data={}, recipe={})
    (tmp_path/'results'/'a.json').write_text(json.dumps(made))
    def python(*args):
        env = {**os.environ, 'PYTHONPATH': str(tmp_path), 'VIRTUAL_ENV': sys.prefix}
        return subprocess.run([sys.executable, *args], cwd=tmp_path, env=env, capture_output=True, text=True)
    return tmp_path, python


ASK = """import json; from effssl.provenance import hashed, since, versions
records = hashed().values(); print(json.dumps([[since(r) for r in records], versions(records)]))"""


def test_a_change_is_seen_said_and_followed(copy):
    "Prose is none; code is, until it is said; the next one follows it; a module that no run imports does not count."
    folder, python = copy
    def edit(module, change):
        path = folder/'effssl'/f'{module}.py'
        path.write_text(change(path.read_text()))
    def asked():
        done = python('-c', ASK)
        assert not done.returncode, done.stderr
        (found,), (told,) = json.loads(done.stdout)
        return found, told
    def say(numbers, why, module='effssl.train'):
        return python('dev.py', 'changed', module, '--numbers', numbers, '--why', why)
    edit('train', lambda text: text.replace('"""', '"""Prose. ', 1) + '\n# prose\n')
    edit('tables', lambda text: text + 'ADDED = 1\n')
    assert asked() == ({}, '')
    edit('train', lambda text: text + 'ADDED = 1\n')
    assert asked() == ({'effssl.train': 'unsaid'}, 'train')
    refused = say('same', ' ')
    assert refused.returncode and 'say why' in refused.stderr and 'Traceback' not in refused.stderr
    done = say('same', 'A name more.')
    assert not done.returncode and asked() == ({}, ''), done.stderr
    edit('train', lambda text: text.replace('ADDED = 1', 'ADDED = 2'))
    assert asked() == ({'effssl.train': 'unsaid'}, 'train')
    assert not say('other', 'Another number.').returncode
    assert asked() == ({'effssl.train': 'other'}, 'train')
    assert [e['numbers'] for e in read_changes(folder/'results')['effssl.train']] == ['same', 'other']
    assert 'nothing is said' in say('same', 'Again.').stderr
