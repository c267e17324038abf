"Sweeps for real: process pool, dask, two at once, a failing run, killed kernels and workers, Ctrl-C, a dry run."
import json, os, signal, subprocess, sys, threading, time
from dataclasses import asdict
from pathlib import Path

import pytest, torch, yaml

import effssl.sweep
from conftest import ROOT
from effssl.building import complete
from effssl.cli import main
from effssl.recipes import Recipe, make, read_recipe, recipe, run_id, shipped, techniques_of
from effssl.records import load
from effssl.sweep import plan, read_grid, sweep

TINY = dict(dataset='digits', image_size=16, encoder='timm:resnet10t',
            encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', stem_width=8), framework_args=dict(width=32),
            epochs=1, batch_size=64, subset=128, test_subset=100, probe=None)
LONG = dict(TINY, epochs=2000, evaluate_every=0)


@pytest.fixture(autouse=True)
def few_threads(monkeypatch): monkeypatch.setenv('OMP_NUM_THREADS', '1')


def grid(tmp_path, **parts):
    (tmp_path/'grid.yml').write_text(yaml.safe_dump(parts))
    return str(tmp_path/'grid.yml')


def whole(out):
    "All files of a sweep are whole: records parse, no half-written file lies about."
    for record in Path(out).rglob('run.json'): json.loads(record.read_text())
    assert not list(Path(out).rglob('*.part*')), list(Path(out).rglob('*.part*'))


def kernels(out):
    "Other processes that hold a file in this folder open."
    found = []
    for p in Path('/proc').glob('[0-9]*'):
        try:
            if any(str(out) in os.readlink(f) for f in (p/'fd').iterdir()): found.append(int(p.name))
        except OSError: pass
    return [p for p in found if p != os.getpid()]


def eventually(condition, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'waited in vain'
        time.sleep(.05)


def test_failing_run_and_two_sweeps_at_once(tmp_path, capsys):
    "Two sweeps in one folder; one run is absurd. Every run is done once, the failure keeps its notebook."
    argv = ['sweep', grid(tmp_path, base=TINY, rows=[{}, {'lr': 1e30, 'optimizer': 'adamw'}]), '--json',
            '--out', str(tmp_path/'runs'), '--collect', str(tmp_path/'collected')]
    with subprocess.Popen([sys.executable, '-m', 'effssl.cli', *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as other:
        eventually(lambda: [*tmp_path.glob('runs/*/run.json')])  # it has begun
        assert main(argv) == 1
        tables = [json.loads(text) for text in (capsys.readouterr().out, other.communicate(timeout=500)[0])]
    assert other.returncode == 1
    df = load(f'{tmp_path}/runs/*')
    assert sorted(df.status) == ['complete', 'failed'] and (df.error.dropna().str.startswith('NonFiniteLoss')).all()
    for t in tables:
        assert {r['state'] for r in t} <= {'complete', 'finished before', 'failed', 'busy'}
        assert 'NonFiniteLoss' in t[1].get('error', '') or t[1]['state'] == 'busy'
    failed = tmp_path/'runs'/df[df.status == 'failed'].id.item()
    cells = json.loads((failed/'pretrain.failed.ipynb').read_text())['cells']
    assert 'error' in [o['output_type'] for c in cells for o in c.get('outputs', [])]
    assert not (failed/'pretrain.ipynb').exists()
    for i in df[df.status == 'complete'].id: assert (tmp_path/'runs'/i/'pretrain.ipynb').exists()
    [collected] = (tmp_path/'collected').iterdir()
    assert collected.read_bytes() == (tmp_path/'runs'/collected.stem/'run.json').read_bytes() and collected.stem == i
    whole(tmp_path/'runs')


def test_killed_kernels_and_worker(tmp_path):
    "kill -9 on the pool's worker, then on a kernel: told, resumed each time, every epoch there once."
    r = recipe(TINY, epochs=30, subset=256, evaluate_every=0)
    record, killed = tmp_path/'runs'/run_id(complete(r))/'run.json', []

    def epochs(): return len(json.loads(record.read_text()).get('history', [])) if record.exists() else 0

    def kill(*victims):
        for victim in victims:
            target = max(epochs(), 1) + 4
            eventually(lambda: epochs() > target and kernels(record.parent))
            kernel = kernels(record.parent)[0]
            worker = int(Path(f'/proc/{kernel}/stat').read_text().rpartition(')')[2].split()[1])
            os.kill(kernel if victim == 'kernel' else worker, signal.SIGKILL)
            killed.append(epochs())
            eventually(lambda: not kernels(record.parent))

    killer = threading.Thread(target=kill, args=('worker', 'kernel'))
    killer.start()
    table = sweep([r], tmp_path/'runs')
    killer.join()
    assert (table.state[0], table.tries[0]) == ('died', 2) and len(killed) == 2
    assert 'killed' in table.error[0] or 'Kernel died' in table.error[0]
    assert sweep([r], tmp_path/'runs').state[0] == 'complete'
    assert [h['epoch'] for h in json.loads(record.read_text())['history']] == list(range(31))
    whole(tmp_path/'runs')


def niceness(process): return os.getpriority(os.PRIO_PROCESS, process)


def ignore_interrupts(): signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize('group', [pytest.param(False, id='kill, begun by a script with &', marks=pytest.mark.slow),
                                   pytest.param(True, id='to all, as a terminal does')])
def test_interrupt(tmp_path, group):
    "A sweep that stands back: its kernels have few threads and less priority; all end when it is interrupted."
    grid(tmp_path, base=LONG, grid={'seed': [0, 1]})
    command = [sys.executable, '-m', 'effssl.cli', 'sweep', tmp_path/'grid.yml', '--out', tmp_path/'runs']
    p = subprocess.Popen([*command, '--workers', '2', '--threads', '3', '--nice', '4'], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, start_new_session=True,
                         preexec_fn=None if group else ignore_interrupts)
    eventually(lambda: len(list((tmp_path/'runs').rglob('last.ckpt'))) == 2)
    eventually(lambda: len(kernels(tmp_path/'runs')) == 2)
    own = niceness(0)
    assert [niceness(p.pid), *map(niceness, kernels(tmp_path/'runs'))] == [own] + [min(own + 4, 19)]*2
    assert all(b'OMP_NUM_THREADS=3' in Path(f'/proc/{k}/environ').read_bytes() for k in kernels(tmp_path/'runs'))
    (os.killpg if group else os.kill)(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and 'goes on from here' in err, err[-2000:]
    eventually(lambda: not kernels(tmp_path/'runs'), 20)
    whole(tmp_path/'runs')
    assert len(list((tmp_path/'runs').rglob('pretrain.failed.ipynb'))) == 2


@pytest.mark.slow
def test_dask(tmp_path):
    from dask.distributed import Client, LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        table = sweep([recipe(TINY, seed=s) for s in (0, 1)], tmp_path/'runs', client.get_executor())
    assert table.state.tolist() == ['complete']*2 and table['knn20'].gt(10).all()


def test_dry_run(tmp_path, capsys):
    dino = {'framework': 'dino', 'framework_args': {'prototypes': 64}, 'precision': 'fp16'}  # planned on any machine
    path = grid(tmp_path, base=TINY, grid={'seed': [0, 1]},
                rows=[{}, dino])
    assert main(['sweep', path, '--dry-run', '--out', str(tmp_path/'runs'), '--json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 4 and all(r['by'] == 'measured' and r['state'] == 'new' for r in rows)
    assert all(min(r[k] for k in ('PFLOPs', 'hours', 'GB', 'MB')) > 0 for r in rows)
    assert [bool(r['said']) for r in rows] == [False]*2 + [not torch.cuda.is_available()]*2  # fp16 timed as fp32
    absent = {'dataset': 'imagenet', 'image_size': 224, 'subset': None}
    path = grid(tmp_path, base=TINY, rows=[{'framework': 'simsam'}, {'epochs': 'ten'}, absent, {'batch_size': 500}])
    assert main(['sweep', path, '--dry-run', '--out', str(tmp_path/'runs')]) == 2
    text = capsys.readouterr().out
    for words in ("simsam", "'ten'", "'imagenet' is missing", 'batch_size 500'): assert words in text, text
    assert main(['sweep', path, '--out', str(tmp_path/'runs')]) == 2 and not (tmp_path/'runs').exists()
    bad = {'grids: {}': 'grid', 'grid: {seed: 1}': '[1]', '- x': 'base, rows or grid', 'rows: 3': 'rows must be'}
    for text, words in bad.items():
        Path(path).write_text(text)
        assert main(['sweep', path]) == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize('name', shipped())
def test_shipped_recipe(name):
    "It is complete, its network builds, its data set is one that anyone can have."
    [row] = plan([asdict(read_recipe(name))]).itertuples()
    assert row.problem == '' and row.data != 'missing'


GRIDS = sorted((ROOT/'nbs'/'experiments'/'grids').glob('*.yml'))


@pytest.mark.parametrize('path', GRIDS, ids=lambda p: p.stem)
def test_committed_grid(path, monkeypatch):
    "Nothing keeps its runs from starting, but perhaps the data; one network is built for each technique."
    build, built = effssl.sweep.builds, set()
    def once(what, batch_size, images):
        r = Recipe(**json.loads(what))
        for t in techniques_of(r): make('technique', *t)  # whatever its arguments
        if r.technique not in built:
            built.add(r.technique)
            build(what, batch_size, images)
    monkeypatch.setattr('effssl.sweep.builds', once)
    runs = read_grid(path)
    table = plan(runs)
    assert set(table.problem) == {''}
    assert len(table) == len(runs), 'two lines are the same run'


def test_plan_sees_a_batch_that_the_loss_cannot_use(tmp_path):
    moco = dict(TINY, framework='mocov2', framework_args=dict(queue=50))
    fits, not_ = plan([dict(moco, batch_size=50), moco], tmp_path).problem
    assert fits == '' and 'queue 50 cannot hold a batch of 64' in not_


def test_picture_that_cannot_be_drawn(tmp_path):
    "All numbers of a run are there: it is complete, and the table says what stopped its notebook."
    r = recipe(TINY, seed=3)
    (tmp_path/run_id(complete(r))/'convergence.png').mkdir(parents=True)  # no file can be written there
    table = sweep([r], tmp_path)
    assert table.state[0] == 'complete' and 'its notebook stopped afterwards' in table.error[0]
    assert 'convergence.png' in table.error[0]
    assert sweep([r], tmp_path).state[0] == 'finished before'
