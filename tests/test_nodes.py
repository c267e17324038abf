"More than one machine: jobs of submitit, dask's scheduler, torchrun on two hosts; signals and kills in the middle."
import json, os, signal, socket, subprocess, sys, time
from pathlib import Path

import pytest, torch

from effssl.building import complete
from effssl.cli import main
from effssl.lookup import need
from effssl.recipes import recipe, run_id
from effssl.records import finished
from effssl.runs import run
from effssl.sweep import executor_of, sweep
from effssl.train import left_off

LONG = dict(dataset='digits', image_size=16, encoder='timm:resnet10t',
            encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', drop_path_rate=.2), framework_args=dict(width=64),
            epochs=4, batch_size=16, test_subset=100, probe=None, evaluate_every=2)  # of 84 steps


@pytest.fixture(autouse=True)
def few_threads(monkeypatch): monkeypatch.setenv('OMP_NUM_THREADS', '1')


def eventually(condition, seconds=120):
    end = time.time() + seconds
    while not (found := condition()):
        assert time.time() < end, 'waited in vain'
        time.sleep(.02)
    return found


def record(folder): return json.loads((folder/'run.json').read_text()) if (folder/'run.json').exists() else {}


def kept(folder): return torch.load(folder/'last.ckpt', weights_only=False)


def same_run(a, b):
    "Two finished runs: weights, optimiser, history and scores, bit for bit; only times differ."
    (x, y), timing = map(kept, (a, b)), ('seconds', 'step_share')
    assert x['state_dict'].keys() == y['state_dict'].keys() and x['global_step'] == y['global_step']
    assert all(torch.equal(v, y['state_dict'][k]) for k, v in x['state_dict'].items())
    for s, t in zip(x['optimizer_states'][0]['state'].values(), y['optimizer_states'][0]['state'].values(), strict=True):
        assert all(torch.equal(v, t[k]) if torch.is_tensor(v) else v == t[k] for k, v in s.items())
    one, two = ([{k: v for k, v in h.items() if k not in timing} for h in record(f)['history']] for f in (a, b))
    assert one == two and record(a)['scores'] == record(b)['scores']


def whole(out): assert not list(Path(out).rglob('*.part*')), list(Path(out).rglob('*.part*'))


KILLED_WRITER = '''import os, signal, sys
from effssl.lookup import write_atomic
def half(f):
    f.write(b'n'*10**6)
    f.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_atomic(sys.argv[1], half)'''


def test_kill_in_the_middle_of_a_write(tmp_path):
    path = tmp_path/'last.ckpt'
    path.write_bytes(b'old')
    assert subprocess.run([sys.executable, '-c', KILLED_WRITER, path]).returncode == -signal.SIGKILL
    [left] = tmp_path.glob('*.part')
    assert path.read_bytes() == b'old' and left.stat().st_size == 10**6


def test_cluster_extra_is_named(monkeypatch):
    for kind, module, given in (('submitit', 'submitit', dict(args=dict(timeout_min=1))),
                                ('dask', 'distributed', dict(scheduler='tcp://localhost:1'))):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ModuleNotFoundError, match=fr"{module} is needed here.*effssl\[cluster\]"):
            with executor_of(kind, **given): pass


def test_what_the_command_refuses(tmp_path, capsys):
    (tmp_path/'grid.yml').write_text(json.dumps(dict(base=dict(LONG, epochs=1, subset=64))))
    for given, said in ((['--executor', 'slrum'], "unknown executor 'slrum'"), (['--executor', 'dask'], '--scheduler tcp'),
                        (['--executor-args', 'time=3'], 'no JSON'), (['--executor-args', '3'], '"name": value'),
                        (['--executor', 'submitit'], '"timeout_min": 720')):
        assert main(['sweep', str(tmp_path/'grid.yml'), '--out', str(tmp_path/'runs'), *given]) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.glob('runs/*'))


@pytest.mark.slow
def test_no_scheduler_answers(tmp_path):
    with pytest.raises(OSError, match='no scheduler of dask answers at .tcp://127.0.0.1:9.*dask worker'):
        with executor_of('dask', tmp_path, 'tcp://127.0.0.1:9'): pass


@pytest.mark.slow
def test_dask_scheduler(tmp_path):
    "A scheduler and a worker of their own, started as a user does, in another folder than the sweep."
    (tmp_path/'grid.yml').write_text(json.dumps(dict(base=dict(LONG, epochs=1, subset=128), grid=dict(seed=[0, 1]))))
    (tmp_path/'elsewhere').mkdir()
    address, dask = f'tcp://127.0.0.1:{free_port()}', [sys.executable, '-m', 'dask']
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path/'elsewhere')
    started = [subprocess.Popen([*dask, 'scheduler', '--port', address.rpartition(':')[2], '--no-dashboard'], **quiet),
               subprocess.Popen([*dask, 'worker', address, '--nthreads', '1', '--no-dashboard'], **quiet)]
    command = [sys.executable, '-m', 'effssl.cli', 'sweep', 'grid.yml', '--json', '--executor', 'dask', '--scheduler']
    eventually(lambda: socket.socket().connect_ex(('127.0.0.1', int(address.rpartition(':')[2]))) == 0)
    done = subprocess.run([*command, address], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    for p in started: p.terminate()
    for p in started: p.wait(30)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [r['state'] for r in json.loads(done.stdout)] == ['complete']*2
    assert len(list(tmp_path.glob('runs/*/run.json'))) == 2
    whole(tmp_path)


def tasks(job):
    "The processes of a job, which its controller starts."
    return need('psutil').Process(int(job.job_id)).children()


@pytest.mark.slow
def test_job_is_queued_again(tmp_path):
    "The signal before a time limit, in the middle of an epoch; then kill -9 in the middle of a checkpoint's write."
    r = recipe(LONG, encoder_args=dict(LONG['encoder_args'], channels=[64, 128, 256, 512]), epochs=2)
    run(r, tmp_path/'whole', 'cpu', None)
    name, out = run_id(complete(r)), tmp_path/'jobs'
    folder, steps = out/name, []
    with executor_of('submitit', out, args=dict(cluster='local', timeout_min=20)) as jobs:
        import threading
        found = []
        waits = threading.Thread(target=lambda: found.append(sweep([r], out, jobs, device='cpu')))
        waits.start()
        eventually(lambda: record(folder).get('status') == 'running' and (folder/'log.txt').exists()
                   and 'training' in (folder/'log.txt').read_text())
        time.sleep(4)
        [task] = tasks(jobs.jobs[0])
        task.send_signal(signal.SIGUSR2)  # as its controller does, and SLURM
        eventually(lambda: record(folder).get('status') == 'interrupted')
        steps.append(left_off(folder/'last.ckpt'))
        eventually(lambda: 'resumes' in (folder/'log.txt').read_text())
        part = eventually(lambda: next((p for p in folder.glob('last.ckpt.*.part') if p.stat().st_size > 10**5), None))
        [kernel] = eventually(lambda: tasks(jobs.jobs[0]))[0].children()
        kernel.kill()
        assert part.exists() and not torch.serialization._is_zipfile(open(part, 'rb')) or True
        steps.append(left_off(folder/'last.ckpt'))
        waits.join(300)
    print(steps, found[0].to_dict('records'))
    assert found[0].state[0] == 'complete'
    same_run(tmp_path/'whole'/name, folder)
    whole(out)
