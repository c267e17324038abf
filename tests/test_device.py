"Every combination walks on CUDA tensors without data, and nobody waits for them unseen; and on a GPU, if there is one."
import copy, os
from contextlib import contextmanager, nullcontext

import pytest, torch

from effssl.building import build, complete
from effssl.data import load, send, take
from effssl.encoders import encoder
from effssl.evaluate import features
from effssl.probes.knn import knn
from effssl.recipes import names, recipe
from effssl.runs import run
from effssl.train import Pretrain, fit, watch
from effssl.views import AUGS, augmentations, make_views
from matrix import FAMILIES, NEED_TOKENS, NEW, SMALL, TECHNIQUES, WAYS, WORKS
from nogpu import HostWaits, NoGPU, bf16, to_gpu

WAITS = {  # who may wait for the device, and why
    'tokens.py:keep_where': 'how many tokens stay is decided by the data, and is a shape',
    'techniques/simwnw.py:matched_boxes': 'of blocks that both views share, those that go: their number is a shape',
    'matching.py:diamond': 'a search that goes on until it has found; the reference, not the fast way',
    'tiles.py:before': 'a mask that removes nothing is no mask',
    'tiles.py:kept_blocks': 'refuses a mask that is not one of whole blocks, or leaves none',
    'tiles.py:<genexpr>': 'where the kept tiles lie: their number is a shape',
    'tiles.py:__init__': 'the same',
    'tiles.py:pack': 'the same',
    'masks.py:keeps_all': 'a mask that removes nothing is no mask, in all processes',
    'masks.py:waxed': 'how many rings there are to paint',
    'masks.py:ring': 'the longest ring is a shape',
    'masks.py:rings': 'rings that grow until the views differ: the paper to the letter, not the fast way',
    'masks.py:core_rings': 'the same: which channels still grow',
    'masks.py:ring_pixels': 'the longest ring inside of a map is a shape',
    'masks.py:regrown': 'how many regions there are to paint',
    'techniques/ets.py:pick': 'which candidates are hardest, by their losses: views are drawn on the CPU',
    'frameworks/dinov2.py:surviving': 'how many masked patches both views have left is a shape'}
FINE = {'tiles.py:kept_blocks'}  # asks whether a mask is in order
VIT, CNN = FAMILIES['ViT'], FAMILIES['ResNet']
ENCODERS = FAMILIES | {'torchvision ResNet': dict(encoder='resnet18'), "a user's own": dict(encoder='toys.Plain')}
B = 4


def made(framework, technique=None, args={}, family=CNN, local=0):
    "Framework and augmentations of a recipe, checked as a run does before it trains; None if it is refused."
    r = dict(dataset='digits', image_size=32, framework=framework, framework_args=SMALL.get(framework, {}),
             technique=technique, technique_args=args, batch_size=B, local_views=local,
             local_size=16 if local else None, **family)
    try:
        fw, augs = build(complete(recipe(r)))
        fw.check(B, [a.size for a in augs], 1000)
    except ValueError: return None
    return fw, augs


def views(augs, device='cuda'):
    images = torch.randint(0, 256, (B, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return make_views(send(images, device), torch.arange(B), augs, 0, 3)


def walked(fw, shown, precision=nullcontext, backward=lambda loss: None):
    "The loss of a step, and what follows a step. On the GPU that is not there nothing goes backward."
    with precision():
        loss = fw(walk := fw.walk(shown, epochs=10, epoch=3, progress=.3, step=5))
    with torch.device(loss.device): module = Pretrain(fw, [], classes=10)
    module.labels = torch.arange(B)
    watch(module, loss, walk)
    backward(loss)
    fw.before_step(3)
    fw.after_step(.3)
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
            loss = walked(fw, shown(fw.views_at(augs, .3)), precision)
            assert loss.device.type == 'cuda' and loss.ndim == 0 and loss.requires_grad, (technique, args)
    return True


@pytest.mark.parametrize('family', ENCODERS)
@pytest.mark.parametrize('framework', sorted(names('framework')))
def test_every_framework_walks(framework, family, shown):
    "On a wrong device an operation fails, in an unexpected wait too."
    assert walks(framework, None, {}, ENCODERS[family], shown) == (framework != 'dinov2' or family == 'ViT')


@pytest.mark.parametrize('technique', TECHNIQUES)
def test_every_technique_walks(technique, shown):
    for family, framework in (('ViT', 'dino'), ('ResNet', 'simclr')):
        walked = walks(framework, technique, TECHNIQUES[technique], FAMILIES[family], shown)
        assert technique in NEW or walked == (technique in WORKS[family]), family


@pytest.mark.slow
@pytest.mark.parametrize('family', ENCODERS)
@pytest.mark.parametrize('framework', sorted(names('framework')))
def test_every_combination_walks(framework, family, shown):
    "The whole product, some minutes."
    walked = {t for t, args in TECHNIQUES.items() if walks(framework, t, args, ENCODERS[family], shown)}
    anywhere = {'resize', 'simwnw', 'rotation', 'resolution', 'fast_moco', 'back_razor', 's3l', 'ets'}
    expected = WORKS.get(family, anywhere)
    if framework not in NEED_TOKENS: assert walked - NEW == expected
    print(framework, family, *sorted(walked))


@pytest.mark.parametrize('technique, args', WAYS, ids=str)
@pytest.mark.parametrize('framework', ['simclr', *(pytest.param(f, marks=pytest.mark.slow) for f in ('byol', 'dino'))])
def test_ways_of_a_technique_walk(framework, technique, args, shown):
    family, framework = (CNN, framework) if technique in WORKS['ResNet'] else (VIT, 'dino')
    assert walks(framework, technique, args, family, shown)


@pytest.mark.parametrize('name', sorted(AUGS))
def test_views_never_wait(name):
    with NoGPU():
        for v in views(augmentations(name, 32)):
            assert v.x.device.type == v.matrix.device.type == 'cuda' and v.x.shape == (B, 3, 32, 32)


def test_probes_wait_for_results_alone():
    "Features of a batch, predicted classes: what the host asks for is copied once it is there, and nothing else."
    net = encoder('timm:resnet10t', 32, channels=[8, 16, 32, 64], stem='imagenet', stem_width=8)
    data = take(load('digits', 'train', 32), 64, 0)
    with NoGPU({'evaluate.py:features', 'probes/knn.py:knn'}) as gpu:
        to_gpu(net)
        x, y = features(net, data, 32)
        assert x.shape == (64, 64) and x.device.type == 'cpu'
        assert knn((x, y), (x, y), 5, device='cuda').n == 64
    assert gpu.waited == {'evaluate.py:features', 'probes/knn.py:knn'}


def test_the_watch_sees():
    "A tensor on the wrong device fails, a wait fails, and both name the place."
    with NoGPU():
        x = torch.ones(3, device='cuda')
        with pytest.raises(RuntimeError, match='cuda'): x + torch.ones(3)
        waits = [lambda: x.sum().item(), lambda: x.nonzero(), lambda: x[x > 0], lambda: x.cpu(),
                 lambda: bool((x > 0).any())]
        for wait in waits:
            with pytest.raises(HostWaits): wait()
        assert torch.rand((), generator=torch.Generator().manual_seed(0)).item() > 0  # the CPU is real


os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # for deterministic()
real = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
LEARN = [dict(framework=f, **(VIT if f in ('dino', 'dinov2', 'mocov3') else CNN)) for f in sorted(names('framework'))]
for t, args in [*TECHNIQUES.items(), *WAYS]:
    where = dict(framework='simclr', **CNN) if t in WORKS['ResNet'] else dict(framework='dino', **VIT)
    LEARN.append(dict(technique=t, technique_args=args, **where))


def called(v): return f"{v['framework']}-{v.get('technique', 'dense')}-{v.get('technique_args', '')}"


def waits(v):
    "Whether shapes depend on the data."
    thresholds = v.get('technique') == 'simwnw' and v['technique_args']
    return v['framework'] == 'dinov2' or v.get('technique') == 'dynamicsimprune' or thresholds


@pytest.mark.cuda
@real
@pytest.mark.parametrize('values', LEARN, ids=called)
def test_trains_on_a_gpu(values, tmp_path):
    "And its linear probe, whose backward pass needs a real device."
    small = dict(SMALL.get(values['framework'], {}))
    if 'queue' in small: small['queue'] = 64
    r = recipe(values, dataset='digits', image_size=32, framework_args=small, epochs=1, batch_size=64,
               precision='bf16', subset=256, test_subset=100)
    record = run(r, tmp_path, 'cuda', None)
    assert record['status'] == 'complete' and record['cost']['memory_is'] == 'allocator peak'
    assert 'CPU' not in record['environment']['device']


@pytest.mark.cuda
@real
@pytest.mark.parametrize('values', [v for v in LEARN if not waits(v)], ids=called)
def test_a_real_step_never_waits(values):
    "What CUDA itself calls a wait; libraries may when they are called for the first time."
    fw, augs = made(values['framework'], values.get('technique'), values.get('technique_args', {}),
                    {k: values[k] for k in VIT if k in values})
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
        with pytest.raises(KeyError, match='stop'):
            fit(module(), copy.copy(data), folder=tmp_path/'b', callbacks=[StopAfterOne()], **kw)
        b = fit(module(), copy.copy(data), folder=tmp_path/'b', **kw)
    assert [h['loss'] for h in a.history] == [h['loss'] for h in b.history]
    for p, q in zip(a.framework.parameters(), b.framework.parameters(), strict=True): assert torch.equal(p, q)


@pytest.mark.cuda
@real
@pytest.mark.parametrize('framework, family', [('simclr', CNN), ('dino', VIT)], ids=['simclr', 'dino'])
def test_loss_is_that_of_the_cpu(framework, family):
    fw, augs = made(framework, family=family)
    on_gpu = copy.deepcopy(fw).cuda()
    there, here = on_gpu(on_gpu.walk(views(augs, 'cuda'))), fw(fw.walk(views(augs, 'cpu')))
    assert there.item() == pytest.approx(here.item(), rel=1e-3)
