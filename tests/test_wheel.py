"What is built from a checkout works without one."
import os, shutil, subprocess, sys, sysconfig, venv
from configparser import ConfigParser
from pathlib import Path

import pytest

from conftest import ROOT
from effssl.cli import TAKEN, VERBS

INI = ConfigParser(delimiters=['='], interpolation=None)
INI.read(ROOT/'settings.ini')
SHIPPED = {p.relative_to(ROOT).as_posix() for pattern in INI['DEFAULT']['shipped'].split() for p in ROOT.glob(pattern)}
GRID = 'base: {dataset: digits, encoder: resnet18, epochs: 1, subset: 64, test_subset: 32, batch_size: 32, probe: none}'


def below(folder) -> set[str]: return {p.relative_to(folder).as_posix() for p in Path(folder).rglob('*') if p.is_file()}


def test_wheel_holds_what_it_needs(tmp_path):
    "The lists of settings.ini, MANIFEST.in and `effssl notebooks` agree; nothing is written into the checkout."
    before = below(ROOT/'effssl')
    command = ['-q', 'egg_info', '--egg-base', tmp_path, 'build_py', '--build-lib', tmp_path/'lib']
    subprocess.run([sys.executable, 'setup.py', *command], cwd=ROOT, check=True, capture_output=True)
    assert below(tmp_path/'lib/effssl/shipped') == SHIPPED
    assert SHIPPED <= {*(tmp_path/'effssl.egg-info/SOURCES.txt').read_text().splitlines()}
    taken = {p.relative_to(ROOT).as_posix() for pattern in TAKEN for p in (ROOT/'nbs').glob(pattern)}
    assert taken < SHIPPED and {f'nbs/experiments/{f}' for f in ('50_pretrain.ipynb', 'recipes/fast.yml')} < SHIPPED
    assert not [p for p in below(ROOT/'effssl') - before if '__pycache__' not in p]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """`run(*command)` in an empty folder with an empty home: effssl is what `python -m build` made, and all that it
    needs is this environment's."""
    at = tmp_path_factory.mktemp('wheel')
    source = shutil.copytree(ROOT, at/'source', ignore=shutil.ignore_patterns('.*', '_docs', 'build', 'dist', 'runs'))
    build = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', at/'dist', source]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    shutil.rmtree(source)
    venv.create(at/'env', with_pip=True, symlinks=True)
    python = at/'env/bin/python'
    env = dict(HOME=str(at/'home'), PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}", OMP_NUM_THREADS='1')
    for folder in ('home', 'here'): (at/folder).mkdir()
    command = [python, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', *(at/'dist').glob('*.whl')]
    subprocess.run(command, env=env, check=True)
    site = next((at/'env/lib').glob('python*/site-packages'))
    (site/'others.pth').write_text(sysconfig.get_paths()['purelib'])  # does not follow the links of a checkout there
    git = ['git', '-C', at, '-c', 'user.name=a', '-c', 'user.email=a@b']  # somebody's repository, with .venv in it
    subprocess.run([*git, 'init', '-q'], check=True)
    subprocess.run([*git, 'commit', '-q', '--allow-empty', '-m', 'not ours'], check=True)

    def run(*command, expect=0):
        done = subprocess.run([str(c) for c in command], cwd=at/'here', env=env, capture_output=True, text=True)
        assert done.returncode == expect, f'{command}: {done.stdout[-2000:]}{done.stderr[-3000:]}'
        return done.stdout + done.stderr
    assert str(site) in run('python', '-c', 'import effssl; print(effssl.__file__)')
    (at/'here/grid.yml').write_text(GRID)
    return run


@pytest.mark.slow
def test_every_verb_answers(wheel):
    small = '--dataset digits --encoder resnet18 --epochs 1 --subset 64 --test-subset 32 --batch-size 32'.split()
    wheel('effssl', 'pretrain', *small, '--probe', 'none', '--out', 'runs')
    told = wheel('effssl', 'runs')
    run = f"runs/{next(word for word in told.split() if word.startswith('simsiam-'))}"
    assert 'fast, ten_minutes' in wheel('effssl', 'list') and 'train' in wheel('effssl', 'look', 'digits')
    assert 'GFLOPs' in wheel('effssl', 'cost', '--recipe', 'fast', '--batch-size', '2', '--draws', '1')
    wheel('effssl', 'evaluate', run, '--probe', 'none')
    assert '512 features' in wheel('effssl', 'embed', run, 'digits', 'out.npz')
    assert 'encoder.safetensors' in wheel('effssl', 'export', run)
    assert 'complete' in wheel('effssl', 'sweep', 'grid.yml', '--out', 'swept')
    assert 'commit": null' in wheel('cat', f'{run}/run.json'), 'the commit of a repository that effssl only lies in'
    tried = {'pretrain', 'runs', 'list', 'look', 'cost', 'evaluate', 'embed', 'export', 'sweep', 'notebooks'}
    for verb in VERBS: assert 'usage: effssl' in wheel('effssl', verb, '--help')
    assert tried == {*VERBS}, 'try the new verb here, too'


@pytest.mark.slow
def test_tutorials_can_be_copied_out(wheel):
    assert '40_first_run' in wheel('effssl', 'notebooks', 'mine')
    assert 'is there already' in wheel('effssl', 'notebooks', 'mine', expect=2)
    first = ['mine/tutorials/40_first_run.ipynb', 'out.ipynb', '--cwd', 'mine/tutorials']
    wheel('python', '-m', 'papermill', *first, '-k', 'python3', '--no-progress-bar')
