"More than one machine: jobs of submitit, dask's scheduler, torchrun on two hosts; signals and kills in the middle."
import json, signal, socket, subprocess, sys, threading, time
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
            encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', drop_path_rate=.2),
            framework_args=dict(width=64), epochs=4, batch_size=16, test_subset=100, probe=None,
            evaluate_every=2)  # epochs of 84 steps


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
    states = (c['optimizer_states'][0]['state'].values() for c in (x, y))
    for s, t in zip(*states, strict=True):
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
    for given, said in ((['--executor', 'slrum'], "unknown executor 'slrum'"),
                        (['--executor', 'dask'], '--scheduler tcp'), (['--executor-args', 'time=3'], 'no JSON'),
                        (['--executor-args', '3'], '"name": value'),
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


def interrupt_and_kill(jobs, folder, at):
    "To a job's run: the signal before a time limit, in an epoch; then kill -9 while a checkpoint is written."
    log = folder/'log.txt'
    eventually(lambda: log.exists() and 'training' in log.read_text())
    time.sleep(3)
    eventually(lambda: tasks(jobs.jobs[0]))[0].send_signal(signal.SIGUSR2)  # as its controller does, and SLURM
    eventually(lambda: record(folder).get('status') == 'interrupted')
    at.append(left_off(folder/'last.ckpt'))
    before = (folder/'last.ckpt').read_bytes()
    part = eventually(lambda: next((p for p in folder.glob('last.ckpt.*.part') if p.stat().st_size), None))
    tasks(jobs.jobs[0])[0].children()[0].kill()
    eventually(lambda: tasks(jobs.jobs[0]) == [])
    at.append(left_off(folder/'last.ckpt'))
    assert part.exists() and (folder/'last.ckpt').read_bytes() == before


@pytest.mark.slow
def test_job_is_queued_again(tmp_path):
    "Signalled, and killed, by turns: the job is queued again, the run resumes, and ends as one that nobody disturbed."
    r = recipe(LONG, encoder_args=dict(LONG['encoder_args'], channels=[32, 64, 128, 256]), epochs=2, subset=640)
    run(r, tmp_path/'whole', 'cpu', None)
    out, at = tmp_path/'jobs', []
    folder = out/run_id(complete(r))
    with executor_of('submitit', out, args=dict(cluster='local', timeout_min=20)) as jobs:
        other = threading.Thread(target=interrupt_and_kill, args=(jobs, folder, at), daemon=True)
        other.start()
        [row] = sweep([r], out, jobs, device='cpu').itertuples()
        other.join(1)
    print('left off at (epochs, batches):', at, '; then', row.state, 'after tries:', row.tries)
    assert row.state == 'complete' and row.tries == 2 and len(at) == 2 and at[0][1] > 0
    assert 'Requeued job' in ''.join(p.read_text() for p in out.glob('jobs/*.out'))
    same_run(tmp_path/'whole'/folder.name, folder)
    whole(out)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def two_hosts(recipes, outs):
    "A run started on two hosts, which have a recipe's file and a folder each: torchrun's two agents."
    common = ['--nnodes=2', '--nproc-per-node=1', '--master-addr=127.0.0.1', f'--master-port={free_port()}']
    return [subprocess.Popen([sys.executable, '-m', 'torch.distributed.run', *common, f'--node-rank={i}', '-m',
                              'effssl.cli', 'pretrain', '--recipe', str(r), '--out', str(out), '--device', 'cpu',
                              '--json'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for i, (r, out) in enumerate(zip(recipes, outs, strict=True))]


def ends(hosts): return [(*p.communicate(timeout=300), p.returncode) for p in hosts]


@pytest.mark.slow
def test_run_on_two_hosts(tmp_path):
    "Only the first process writes; what is not shared is refused; signalled and resumed, it ends with the same bits."
    for i in (0, 1): (tmp_path/f'{i}.json').write_text(json.dumps(dict(LONG, seed=i, epochs=2)))
    mine, other, name = tmp_path/'0.json', tmp_path/'1.json', run_id(complete(recipe(LONG, epochs=2)))
    alone, shared, own = (tmp_path/n for n in ('alone', 'shared', 'own'))
    shared.mkdir()
    (tmp_path/'mounted').symlink_to(shared)  # the same folder, by another path
    assert [code for *_, code in ends(two_hosts([mine]*2, [alone, own]))] == [0, 0]
    assert [*own.rglob('*')] == [own/name] and finished(alone/name)
    both = two_hosts([mine]*2, [shared, tmp_path/'mounted'])
    eventually(lambda: left_off(shared/name/'last.ckpt')[0])
    for p in both: p.send_signal(signal.SIGTERM)
    assert all(code for *_, code in ends(both))
    at = left_off(shared/name/'last.ckpt')
    print('left off at (epochs, batches):', at)
    assert at[0] == 1 and at[1] > 0 and record(shared/name)['status'] == 'interrupted'
    for i, (recipes, outs) in enumerate([([mine]*2, [shared, own]), ([mine, other], [shared]*2)]):
        for _, err, code in ends(two_hosts(recipes, outs)):
            assert code and 'process 1 on' in err and 'a folder that they share' in err, err[-3000:]
        assert left_off(shared/name/'last.ckpt') == at
    assert [code for *_, code in ends(two_hosts([mine]*2, [shared, tmp_path/'mounted']))] == [0, 0]
    same_run(alone/name, shared/name)
    whole(shared)
