"kill -9 at random moments, resume: the same final weights. Interrupted files, interrupted runs."
import json, multiprocessing, os, random, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path

import pytest, torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

import effssl.data
from effssl.building import complete
from effssl.data import load, take
from effssl.encoders import encoder
from effssl.lookup import write_atomic
from effssl.recipes import find, names, recipe, run_id
from effssl.runs import run
from effssl.techniques.accel import Accel
from effssl.techniques.dual_gating import DualGating
from effssl.techniques.simprune import SimPrune
from effssl.techniques.simwnw import SimWNW
from effssl.train import Pretrain, fit
from effssl.views import augmentations
from toys import RandomTokens

KILLED = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t',
                encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', drop_path_rate=.2),
                framework_args=dict(width=64), epochs=12, batch_size=32, subset=320, test_subset=100, probe=None,
                evaluate_every=4)


def train(out):
    torch.set_num_threads(1)  # quick also where other work keeps the cores busy
    run(KILLED, out, 'cpu', None)


def start(out):
    p = multiprocessing.get_context('forkserver').Process(target=train, args=(str(out),))
    p.start()
    return p


def epochs_done(record):
    "Epochs that a run's record tells of; -1 before it began. The record is whole at every moment."
    return len(json.loads(record.read_text()).get('history', [None])) - 1 if record.exists() else -1


def test_kill_and_resume(tmp_path):
    folder = run_id(complete(KILLED))
    whole = start(tmp_path/'whole')
    whole.join(600)
    assert whole.exitcode == 0
    draw, record = random.Random(0), tmp_path/'killed'/folder/'run.json'
    for target in sorted(draw.sample(range(9), 3)):  # of twelve epochs, each killed a random while after
        p = start(tmp_path/'killed')
        while p.is_alive() and epochs_done(record) < target: time.sleep(.02)
        time.sleep(.2*draw.random())
        assert p.is_alive()
        os.kill(p.pid, signal.SIGKILL)
        p.join()
    p = start(tmp_path/'killed')
    p.join(600)
    assert p.exitcode == 0
    a, b = (torch.load(tmp_path/o/folder/'last.ckpt', weights_only=False) for o in ('whole', 'killed'))
    assert a['state_dict'].keys() == b['state_dict'].keys() and a['global_step'] == b['global_step'] == 10*12
    assert all(torch.equal(v, b['state_dict'][k]) for k, v in a['state_dict'].items())
    records = [json.loads((tmp_path/o/folder/'run.json').read_text()) for o in ('whole', 'killed')]
    assert [h.get('knn20') for h in records[0]['history']] == [h.get('knn20') for h in records[1]['history']]
    assert records[0]['scores'] == records[1]['scores'] and records[1]['status'] == 'complete'


def test_atomic_write_keeps_the_old_file(tmp_path):
    path = tmp_path/'run.json'
    write_atomic(path, lambda f: f.write(b'old'))
    def broken(f):
        f.write(b'ne')
        raise OSError(28, 'No space left on device')
    with pytest.raises(OSError, match='intact'): write_atomic(path, broken)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['run.json']


def test_error_is_recorded_and_the_run_resumes(tmp_path):
    bad = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t',
                 encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet'), framework_args=dict(width=32),
                 epochs=2, batch_size=64, subset=128, lr=1e30, probe=None, optimizer='adamw')
    with pytest.raises(RuntimeError, match='the loss is'): run(bad, tmp_path, progress=None)
    record = json.loads(next(Path(tmp_path).glob('*/run.json')).read_text())
    assert record['status'] == 'failed' and 'NonFiniteLoss' in record['error']


def test_weights_do_not_depend_on_evaluation(tmp_path):
    base = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t',
                  encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', stem_width=8, drop_path_rate=.2),
                  framework_args=dict(width=32), epochs=2, batch_size=64, subset=128, probe=None, test_subset=50)
    def weights(every):
        folder = Path(run(replace(base, evaluate_every=every), tmp_path, progress=None)['folder'])
        return torch.load(folder/'last.ckpt', weights_only=False)['state_dict']
    a, b = weights(0), weights(1)
    assert all(torch.equal(v, b[k]) for k, v in a.items())


class StopAfterOne(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1: raise KeyError('stop')


def resumed_is_equal(module, data, tmp_path):
    "Train at a stretch, and with a stop after the first epoch: every bit is the same."
    kw = dict(epochs=3, batch_size=32, device='cpu')
    a = fit(module(), data, folder=tmp_path/'a', **kw)
    with pytest.raises(KeyError, match='stop'):
        fit(module(), data, folder=tmp_path/'b', callbacks=[StopAfterOne()], **kw)
    b = fit(module(), data, folder=tmp_path/'b', **kw)
    for (k, v), w in zip(a.state_dict().items(), b.state_dict().values()): assert torch.equal(v, w), k
    assert [h['loss'] for h in a.history] == [h['loss'] for h in b.history]
    return a


@pytest.mark.parametrize('args', [
    dict(quota=.25, keep='random'), dict(quota=.5, how='exact'), dict(preset='paper')], ids=str)
def test_simwnw_resumes_bit_equal(args, tmp_path):
    def module():
        torch.manual_seed(0)
        net = encoder('timm:resnet18', 32, layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])
        return Pretrain(find('framework', 'simsiam')(net, [SimWNW(**args)], width=32), augmentations('mocov2', 32),
                        'sgd', .1, seed=1)
    history = resumed_is_equal(module, take(load('digits', 'train', 32), 96, 0), tmp_path).history
    assert all(0 < h['removed'] < 1 for h in history)  # it did remove something


@pytest.mark.parametrize('framework, small, args', [
    ('mocov2', dict(queue=64), {}), ('simclr', {}, dict(forward='full', select='examples')),
    ('swav', dict(prototypes=20, queue=0), dict(scheme='skipping'))], ids=str)
def test_accel_resumes_bit_equal(framework, small, args, tmp_path):
    def module():
        torch.manual_seed(0)
        cls = find('framework', framework)
        net = encoder('timm:resnet18', 32, layers=[1, 1, 1, 1], channels=[8, 16, 32, 64], stem_stride=2)
        return Pretrain(cls(net, [Accel(**args)], **small), augmentations(cls.augs, 32), 'sgd', .1, seed=1)
    history = resumed_is_equal(module, take(load('digits', 'train', 32), 96, 0), tmp_path).history
    assert len({h['depth'] for h in history}) > 1  # it did draw


@pytest.mark.parametrize('framework, args', [
    ('vicreg', dict(warmup_epochs=1)), ('barlowtwins', dict(constraint='lagrange')), ('byol', dict(both=True)),
    ('vicreg', dict(two_encoders=True))], ids=str)
def test_dual_gating_resumes_bit_equal(framework, args, tmp_path):
    def module():
        torch.manual_seed(0)
        cls = find('framework', framework)
        net = encoder('timm:resnet18', 32, layers=[1, 1, 1, 1], channels=[8, 16, 32, 64], stem_stride=2)
        small = dict(hidden=64, out=32) if framework == 'byol' else dict(width=64)
        return Pretrain(cls(net, [DualGating(.3, **args)], **small), augmentations(cls.augs, 32), 'lars_clip', .1,
                        1e-4, seed=1)
    a = resumed_is_equal(module, take(load('digits', 'train', 32), 96, 0), tmp_path)
    assert 'macs_share' in a.history[-1] and ('macs_share' in a.history[0]) != bool(args.get('warmup_epochs'))


@pytest.mark.parametrize('framework', sorted(names('framework')))
def test_resume_is_bit_equal(framework, tmp_path):
    "Every framework, stochastic depth, and SimPrune where it has local views, elsewhere a technique that draws."
    cls, data = find('framework', framework), take(load('digits', 'train', 32), 96, 0)
    local, small = (dict(local_views=2), dict(prototypes=64)) if cls.augs == 'dino' else ({}, {})
    if framework in ('mocov1', 'mocov2'): small = dict(queue=64)  # goes round
    if framework == 'swav': small = dict(prototypes=64, queue=64, queue_start=0)  # full when the run is stopped
    def module():
        torch.manual_seed(0)
        net = encoder('vit_tiny_patch16_224', 32, patch_size=8, embed_dim=48, depth=2, num_heads=3, drop_path_rate=.2)
        return Pretrain(cls(net, [SimPrune(.7, (1, 2)) if local else RandomTokens(.5)], **small),
                        augmentations(cls.augs, 32, **local), 'adamw', 1e-3, seed=1)
    a = resumed_is_equal(module, data, tmp_path)
    if a.framework.target is not None:
        assert not torch.equal(a.framework.target.cls_token, a.framework.encoder.cls_token)


def test_resume_is_bit_equal_where_workers_decode(tmp_path, monkeypatch):
    "They read ahead before a training knows its epoch: the order must be that of the epoch it resumes with."
    monkeypatch.setattr(effssl.data, 'MEMORY', 0)
    for i in range(72):
        (tmp_path/'set'/'train'/str(i % 2)).mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (16, 16), (3*i, 200 - 2*i, 99)).save(tmp_path/'set'/'train'/str(i % 2)/f'{i:02}.png')
    data = load(f"folder:{tmp_path/'set'}", 'train', 16)
    assert not data.in_memory
    def module():
        torch.manual_seed(0)
        net = encoder('timm:resnet10t', 16, channels=[8, 16, 32, 64], stem='imagenet', stem_width=8)
        return Pretrain(find('framework', 'simsiam')(net, [], width=64), augmentations('mocov2', 16), lr=.1, seed=1)
    resumed_is_equal(module, data, tmp_path)


SMALL = dict(dataset='digits', image_size=16, encoder='timm:resnet10t',
             encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', stem_width=8), framework_args=dict(width=32),
             epochs=1, batch_size=64, subset=128, test_subset=50, probe=None)


@pytest.fixture
def small_disk(tmp_path):
    "A folder on a file system of its own, of 3 MB."
    disk = tmp_path/'disk'
    disk.mkdir()
    made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk], capture_output=True, text=True)
    if made.returncode: pytest.skip(f'this user may not mount a small disk: {made.stderr.strip()}')
    yield disk
    subprocess.run(['umount', disk], check=True)


def test_full_disk(small_disk):
    first = run(recipe(SMALL), small_disk, progress=None)
    before = {p: p.read_bytes() for p in small_disk.rglob('*') if p.is_file()}
    big = recipe(SMALL, encoder_args=dict(channels=[64, 128, 256, 512], stem='imagenet'))  # its checkpoint does not fit
    with pytest.raises(OSError, match='No space left|could not be written') as e: run(big, small_disk, progress=None)
    assert 'last.ckpt' in str(e.value) and 'disk full' in str(e.value)
    assert all(p.read_bytes() == b for p, b in before.items())  # earlier results are whole
    record = json.loads((small_disk/run_id(complete(big))/'run.json').read_text())
    assert record['status'] == 'failed' and 'disk full' in record['error'] and not list(small_disk.rglob('*.part'))
    assert run(recipe(SMALL), small_disk, progress=None) == first


def test_full_disk_from_the_first_byte(small_disk):
    run(recipe(SMALL), small_disk, progress=None)
    free = os.statvfs(small_disk)
    (small_disk/'filler').write_bytes(b'0'*(free.f_bavail*free.f_bsize))
    with pytest.raises(OSError, match='run.json.*disk full'): run(recipe(SMALL, seed=1), small_disk, progress=None)
    assert not list(small_disk.rglob('*.part'))
    (small_disk/'filler').unlink()
    assert run(recipe(SMALL, seed=1), small_disk, progress=None)['status'] == 'complete'


def test_unreadable_image(tmp_path, monkeypatch):
    "An image that breaks in the middle of a training, in a worker process: named, and what was there stays."
    monkeypatch.setattr(effssl.data, 'MEMORY', 0)  # decode while training, as a large set is
    folder = tmp_path/'set'
    for c in 'ab':
        for s, n in (('train', 40), ('test', 8)):
            (folder/s/c).mkdir(parents=True)
            for i in range(n): Image.new('RGB', (20, 20), (5*i, 100*(c == 'a'), 50)).save(folder/s/c/f'{i:02}.png')
    r = recipe(SMALL, dataset=f'folder:{folder}', subset=None, test_subset=None, batch_size=16, k=5)
    done = run(r, tmp_path/'runs', progress=None, workers=2)
    good = (folder/'train/a/17.png').read_bytes()
    (folder/'train/a/17.png').write_bytes(good[:45] + b'\0'*(len(good) - 57) + good[-12:])  # its header, its end
    with pytest.raises(ValueError, match='train/a/17.png.*Mend or remove'):
        run(recipe(r.__dict__, seed=1), tmp_path/'runs', progress=None, workers=2)
    failed = json.loads((tmp_path/'runs'/run_id(complete(recipe(r.__dict__, seed=1)))/'run.json').read_text())
    assert failed['status'] == 'failed' and '17.png' in failed['error']
    assert run(r, tmp_path/'runs', progress=None) == done


def test_interrupt_says_where_the_run_goes_on(tmp_path):
    "Ctrl-C in `effssl pretrain`: exit code 130, an interrupted record, and a sentence."
    recipe_file = tmp_path/'recipe.json'
    recipe_file.write_text(json.dumps({k: v for k, v in vars(KILLED).items() if v is not None} | dict(epochs=60)))
    command = [sys.executable, '-m', 'effssl.cli', 'pretrain', '--recipe', recipe_file, '--out', tmp_path/'runs',
               '--device', 'cpu', '--probe', 'none']
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and not [*tmp_path.glob('runs/*/last.ckpt')]: time.sleep(.05)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    [record] = tmp_path.glob('runs/*/run.json')
    said = json.loads(record.read_text())
    done = len(torch.load(record.parent/'last.ckpt', weights_only=False)['history'])
    assert p.returncode == 130 and f'resumes after epoch {done} of 60' in err, err[-2000:]
    assert said['status'] == 'interrupted' and said['error'].endswith(f'after epoch {done} of 60')
