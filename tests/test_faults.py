"kill -9 at random moments, resume: the same final weights. Interrupted files, interrupted runs."
import json, multiprocessing, os, random, signal, time
from pathlib import Path

import pytest, torch

from effssl.runs import complete, recipe, run, run_id
from effssl.train import write_atomic

KILLED = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t', encoder_args=dict(channels=[16, 32, 64, 128], stem='imagenet', drop_path_rate=.2),
                framework_args=dict(width=64), epochs=12, batch_size=32, test_subset=100, probe=None, evaluate_every=4)


def train(out):
    torch.set_num_threads(1)  # quick also where other work keeps the cores busy
    run(KILLED, out, 'cpu', None)


def start(out):
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['effssl.runs'])
    p = context.Process(target=train, args=(str(out),))
    p.start()
    return p


def epochs_done(record):
    "Epochs that a run's record tells of; -1 before it began. The record is whole at every moment."
    return len(json.loads(record.read_text()).get('history', [None])) - 1 if record.exists() else -1


def test_kill_and_resume(tmp_path):
    folder = run_id(complete(KILLED))
    whole = start(tmp_path/'whole'); whole.join(600)
    assert whole.exitcode == 0
    draw, record = random.Random(0), tmp_path/'killed'/folder/'run.json'
    for target in sorted(draw.sample(range(9), 5)):  # five moments of twelve epochs, each a random while after its epoch
        p = start(tmp_path/'killed')
        while p.is_alive() and epochs_done(record) < target: time.sleep(.02)
        time.sleep(.4*draw.random())
        assert p.is_alive()
        os.kill(p.pid, signal.SIGKILL); p.join()
    p = start(tmp_path/'killed'); p.join(600)
    assert p.exitcode == 0
    a, b = (torch.load(tmp_path/o/folder/'last.ckpt', weights_only=False) for o in ('whole', 'killed'))
    assert a['state_dict'].keys() == b['state_dict'].keys() and a['global_step'] == b['global_step'] == 42*12
    assert all(torch.equal(v, b['state_dict'][k]) for k, v in a['state_dict'].items())
    records = [json.loads((tmp_path/o/folder/'run.json').read_text()) for o in ('whole', 'killed')]
    assert [h.get('knn') for h in records[0]['history']] == [h.get('knn') for h in records[1]['history']]
    assert records[0]['scores'] == records[1]['scores'] and records[1]['status'] == 'complete'


def test_atomic_write_keeps_the_old_file(tmp_path):
    path = tmp_path/'run.json'
    write_atomic(path, lambda f: f.write(b'old'))
    def broken(f): f.write(b'ne'); raise OSError(28, 'No space left on device')
    with pytest.raises(OSError, match='intact'): write_atomic(path, broken)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['run.json']


def test_error_is_recorded_and_the_run_resumes(tmp_path):
    bad = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t', encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet'), framework_args=dict(width=32),
                 epochs=2, batch_size=64, subset=128, lr=1e30, probe=None, optimizer='adamw')
    with pytest.raises(RuntimeError, match='the loss is'): run(bad, tmp_path, progress=None)
    record = json.loads(next(Path(tmp_path).glob('*/run.json')).read_text())
    assert record['status'] == 'failed' and 'NonFiniteLoss' in record['error']


def test_weights_do_not_depend_on_evaluation(tmp_path):
    base = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t', encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', drop_path_rate=.2), framework_args=dict(width=32),
                  epochs=2, batch_size=64, subset=128, probe=None, test_subset=50)
    from dataclasses import replace
    a, b = (torch.load(Path(run(replace(base, evaluate_every=e), tmp_path, progress=None)['folder'])/'last.ckpt', weights_only=False)['state_dict'] for e in (0, 1))
    assert all(torch.equal(v, b[k]) for k, v in a.items())
