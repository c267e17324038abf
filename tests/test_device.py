"On a GPU that is not there: every combination walks on CUDA tensors without data, and nobody waits for them unseen. And on a real one, where there is one."
import copy, os
from contextlib import contextmanager, nullcontext

import pytest, torch

from effssl.data import load, send, take
from effssl.encoders import encoder
from effssl.evaluate import features, knn
from effssl.recipes import find, names, recipe
from effssl.runs import build, complete, run
from effssl.train import Pretrain, fit
from effssl.views import AUGS, augmentations, make_views
from nogpu import HostWaits, NoGPU, bf16, to_gpu

WAITS = {  # who may wait for the device, and why
    'techniques/simprune.py:prune_pair': 'how many tokens stay is decided by the data, and is a shape',
    'techniques/simprune.py:prune_local': 'the same, in local views',
    'techniques/simwnw.py:matched_boxes': 'of blocks that both views share, those that go: their number is a shape',
    'matching.py:diamond': 'a search that goes on until it has found; the reference, not the fast way',
    'tiles.py:before': 'a mask that removes nothing is no mask',
    'tiles.py:kept_blocks': 'refuses a mask that is not one of whole blocks, or leaves none',
    'tiles.py:<genexpr>': 'where the kept tiles lie: their number is a shape',
    'tiles.py:__init__': 'the same',
    'tiles.py:pack': 'the same',
    'masks.py:keeps_all': 'a mask that removes nothing is no mask, in all processes',
    'masks.py:painted': 'how many rings there are to paint',
    'masks.py:ring': 'the longest ring is a shape',
    'masks.py:rings': 'rings that grow until the views differ: the paper to the letter, not the fast way',
    'frameworks/dinov2.py:surviving': 'how many masked patches both views have left is a shape'}
FINE = {'tiles.py:kept_blocks'}  # asks whether a mask is in order
VIT = dict(encoder='vit_tiny_patch16_224', encoder_args=dict(patch_size=8, embed_dim=24, depth=4, num_heads=3))
CNN = dict(encoder='timm:resnet18', encoder_args=dict(layers=[1, 1, 1, 1], channels=[8, 16, 32, 64]))
FAMILIES = {'ViT': VIT, 'timm ResNet': CNN, 'torchvision ResNet': dict(encoder='resnet18'), "a user's own": dict(encoder='toys.Plain')}
BLOCKS = {'blocks': [2, 3]}
TECHNIQUES = {None: {}, 'simprune': BLOCKS, 'dynamicsimprune': BLOCKS | {'compute': .8}, 'evit': BLOCKS, 'tome': BLOCKS, 'last_block': {}, 'resize': {}, 'simwnw': {},
              'accel': {}, 'dual_gating': {}, 'rotation': {}}
TOKENS = {'simprune', 'dynamicsimprune', 'evit', 'tome', 'last_block', 'simwnw', 'rotation'}  # work on a ViT
MAPS = {'resize', 'simwnw', 'accel', 'dual_gating', 'rotation'}  # work on a ResNet
NEED_TOKENS = {'dinov2'}  # a framework that refuses encoders, and techniques, without all patch tokens
WAYS = [('simwnw', dict(threshold=20., how='exact')), ('simwnw', dict(quota=.25, how='mask')), ('simwnw', dict(preset='paper')),
        ('simwnw', dict(quota=.25, how='reuse')), ('accel', dict(forward='full', select='examples')), ('accel', dict(scheme='skipping')),
        ('dual_gating', dict(constraint='lagrange', both=True)), ('dual_gating', dict(two_encoders=True))]
SMALL = {'mocov1': dict(queue=16), 'mocov2': dict(queue=16), 'swav': dict(prototypes=16, queue=16, queue_start=0), 'dino': dict(prototypes=16, hidden=32),
         'dinov2': dict(prototypes=16, hidden=32)}
B = 4


def made(framework, technique=None, args={}, family=CNN, local=0):
    "Framework and augmentations of a recipe, checked as a run does before it trains; None where the combination is refused."
    r = dict(dataset='digits', image_size=32, framework=framework, framework_args=SMALL.get(framework, {}), technique=technique, technique_args=args,
             batch_size=B, local_views=local, local_size=16 if local else None, **family)
    try:
        fw, augs = build(complete(recipe(r)))
        fw.check(B, [a.size for a in augs], 1000)
    except ValueError: return None
    return fw, augs


def views(augs, device='cuda'):
    images = torch.randint(0, 256, (B, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return make_views(send(images, device), torch.arange(B), augs, 0, 3)


def walked(fw, shown, precision=nullcontext, backward=lambda loss: None):
    "The loss of a step; the framework goes through what follows a step, too. On the GPU that is not there nothing goes backward."
    with precision():
        loss = fw(walk := fw.walk(shown, epochs=10, epoch=3, progress=.3, step=5))
    module = Pretrain(fw, [])
    module.watch(loss, walk); backward(loss); fw.before_step(3); fw.after_step(.3)
    return loss


@pytest.fixture(scope='module')
def shown():
    "The views of every recipe, drawn once on the GPU that is not there."
    found = {}
    def get(augs):
        key = tuple(augs)
        if key not in found: found[key] = views(augs)
        return found[key]
    return get


def walks(framework, technique, args, family, shown) -> bool:
    "Whether a combination is not refused; then it walks in fp32 and bf16."
    local = 2 if framework in ('dino', 'dinov2', 'swav') else 0
    if (combination := made(framework, technique, args, family, local)) is None: return False
    fw, augs = combination
    with NoGPU(WAITS, FINE):
        to_gpu(fw).train()
        for precision in (nullcontext, bf16):
            loss = walked(fw, shown(augs), precision)
            assert loss.device.type == 'cuda' and loss.ndim == 0 and loss.requires_grad, (technique, args)
    return True


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('framework', sorted(names('framework')))
def test_every_framework_walks(framework, family, shown):
    "On a wrong device an operation fails, in an unexpected wait too."
    assert walks(framework, None, {}, FAMILIES[family], shown) == (framework != 'dinov2' or family == 'ViT')


@pytest.mark.parametrize('technique', [t for t in TECHNIQUES if t])
def test_every_technique_walks(technique, shown):
    found = {f for f, framework in (('ViT', 'dino'), ('timm ResNet', 'simclr')) if walks(framework, technique, TECHNIQUES[technique], FAMILIES[f], shown)}
    assert found == {f for f, those in (('ViT', TOKENS), ('timm ResNet', MAPS)) if technique in those}


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('framework', sorted(names('framework')))
def test_every_combination_walks(framework, family, shown):
    "The whole product, some minutes."
    walked = {t for t, args in TECHNIQUES.items() if t and walks(framework, t, args, FAMILIES[family], shown)}
    if framework not in NEED_TOKENS:
        assert walked == (MAPS if 'ResNet' in family else TOKENS if family == 'ViT' else {'resize', 'simwnw', 'rotation'})
    print(framework, family, *sorted(walked))


@pytest.mark.parametrize('technique, args', WAYS, ids=str)
@pytest.mark.parametrize('framework', ['simclr', pytest.param('byol', marks=pytest.mark.slow), pytest.param('dino', marks=pytest.mark.slow)])
def test_ways_of_a_technique_walk(framework, technique, args, shown): assert walks(framework, technique, args, CNN, shown)


def test_techniques_are_all_there():
    "What a module exports as a technique is one."
    assert set(TECHNIQUES) - {None} == set(names('technique'))


@pytest.mark.parametrize('name', sorted(AUGS))
def test_views_never_wait(name):
    with NoGPU():
        for v in views(augmentations(name, 32)): assert v.x.device.type == v.matrix.device.type == 'cuda' and v.x.shape == (B, 3, 32, 32)


def test_probes_wait_for_results_alone():
    "Features of a batch, predicted classes: what the host asks for is copied once it is there, and nothing else."
    net = encoder('timm:resnet10t', 32, channels=[8, 16, 32, 64], stem='imagenet')
    data = take(load('digits', 'train', 32), 64, 0)
    with NoGPU({'evaluate.py:features', 'evaluate.py:knn'}) as gpu:
        to_gpu(net)
        x, y = features(net, data, 32)
        assert x.shape == (64, 64) and x.device.type == 'cpu'
        assert knn((x, y), (x, y), 5, device='cuda').n == 64
    assert gpu.waited == {'evaluate.py:features', 'evaluate.py:knn'}


def test_the_watch_sees():
    "A tensor on the wrong device fails, a wait fails, and both name the place."
    with NoGPU():
        x = torch.ones(3, device='cuda')
        with pytest.raises(RuntimeError, match='cuda'): x + torch.ones(3)
        for wait in (lambda: x.sum().item(), lambda: x.nonzero(), lambda: x[x > 0], lambda: x.cpu(), lambda: bool((x > 0).any())):
            with pytest.raises(HostWaits): wait()
        assert torch.rand((), generator=torch.Generator().manual_seed(0)).item() > 0  # the CPU is real


os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # for deterministic()
real = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
LEARN = [dict(framework=f, **(VIT if f in ('dino', 'dinov2', 'mocov3') else CNN)) for f in sorted(names('framework'))]
LEARN += [dict(framework='dino' if family is VIT else 'simclr', technique=t, technique_args=a, **family) for t, a in [*TECHNIQUES.items(), *WAYS] if t
          for family in [VIT if t in ('simprune', 'dynamicsimprune', 'evit', 'tome', 'last_block') else CNN]]


def called(v): return f"{v['framework']}-{v.get('technique', 'dense')}-{v.get('technique_args', '')}"
def waits(v): return v['framework'] == 'dinov2' or v.get('technique') == 'dynamicsimprune' or v.get('technique') == 'simwnw' and bool(v['technique_args'])


@pytest.mark.cuda
@real
@pytest.mark.parametrize('values', LEARN, ids=called)
def test_trains_on_a_gpu(values, tmp_path):
    small = SMALL.get(values['framework'], {}) | ({'queue': 64} if 'queue' in SMALL.get(values['framework'], {}) else {})
    r = recipe(dict(dataset='digits', image_size=32, framework_args=small, epochs=1, batch_size=64, precision='bf16', subset=256, test_subset=100),
               **values)  # and its linear probe, whose backward pass needs a real device
    record = run(r, tmp_path, 'cuda', None)
    assert record['status'] == 'complete' and 'CPU' not in record['environment']['device'] and record['cost']['memory_is'] == 'allocator peak'


@pytest.mark.cuda
@real
@pytest.mark.parametrize('values', [v for v in LEARN if not waits(v)], ids=called)
def test_a_real_step_never_waits(values):
    "What CUDA itself calls a wait; libraries may when they are called for the first time."
    fw, augs = made(values['framework'], values.get('technique'), values.get('technique_args', {}), {k: values[k] for k in VIT if k in values})
    fw.cuda().train()
    for mode in ('default', 'error'):
        torch.cuda.set_sync_debug_mode(mode)
        try: walked(fw, views(augs), backward=torch.Tensor.backward)
        finally: torch.cuda.set_sync_debug_mode('default')


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try: yield
    finally: torch.use_deterministic_algorithms(False)


@pytest.mark.cuda
@real
@pytest.mark.parametrize('framework, family', [('simsiam', CNN), ('dino', VIT)], ids=['simsiam', 'dino'])
def test_resumes_on_a_gpu(framework, family, tmp_path):
    "To the bit, where PyTorch is asked for operations that repeat."
    from test_faults import StopAfterOne
    def module():
        torch.manual_seed(0)
        return Pretrain(*made(framework, family=family), 'sgd', .1, seed=1)
    data, kw = take(load('digits', 'train', 32), 96, 0), dict(epochs=3, batch_size=32, device='cuda')
    with deterministic():
        a = fit(module(), copy.copy(data), folder=tmp_path/'a', **kw)
        with pytest.raises(KeyError, match='stop'): fit(module(), copy.copy(data), folder=tmp_path/'b', callbacks=[StopAfterOne()], **kw)
        b = fit(module(), copy.copy(data), folder=tmp_path/'b', **kw)
    assert [h['loss'] for h in a.history] == [h['loss'] for h in b.history]
    for p, q in zip(a.framework.parameters(), b.framework.parameters(), strict=True): assert torch.equal(p, q)


@pytest.mark.cuda
@real
@pytest.mark.parametrize('framework, family', [('simclr', CNN), ('dino', VIT)], ids=['simclr', 'dino'])
def test_loss_is_that_of_the_cpu(framework, family):
    fw, augs = made(framework, family=family)
    here, there = fw, copy.deepcopy(fw).cuda()
    assert there(there.walk(views(augs, 'cuda'))).item() == pytest.approx(here(here.walk(views(augs, 'cpu'))).item(), rel=1e-3)
