"What each process of test_distributed runs: short trainings of frameworks; there are two, and the test itself is one."
import os
from functools import partial

import torch
import torch.nn.functional as F

from effssl.data import load, take
from effssl.encoders import encoder
from effssl.lockstep import Technique
from effssl.recipes import find
from effssl.recompute import advance_twice, in_parts
from effssl.techniques.accel import Accel
from effssl.techniques.patch_slimming import PatchSlimming
from effssl.techniques.simprune import SimPrune
from effssl.techniques.simwnw import SimWNW
from effssl.train import Pretrain, fit, one_pass, ranks
from effssl.views import augmentations

ENCODERS = {
    'tiny': ('timm:resnet10t', dict(channels=[8, 16, 32, 64], stem='imagenet', stem_width=8)),
    'CNN': ('timm:resnet18', dict(layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
    'ViT': ('vit_tiny_patch16_224', dict(patch_size=8, embed_dim=48, depth=2, num_heads=3))}
PROTOTYPES = dict(prototypes=50, hidden=64, freeze_epochs=0)
CASES = {  # encoder, arguments of the framework, techniques
    'simclr': ('tiny', {}, lambda: []),
    'simsiam': ('tiny', dict(width=64), lambda: []),
    'simsiam, recompute': ('tiny', dict(width=64), lambda: []),
    'simclr, parts': ('tiny', {}, lambda: []),
    'simsiam, compact': ('CNN', dict(width=64), lambda: [SimWNW(.25)]),
    'simsiam, exact': ('CNN', dict(width=64), lambda: [SimWNW(.5, how='exact')]),
    'simsiam, paper': ('CNN', dict(width=64), lambda: [SimWNW(preset='paper')]),
    'simclr, accel': ('CNN', dict(temperature=.5), lambda: [Accel()]),
    'simclr, accel, full': ('CNN', dict(temperature=.5), lambda: [Accel(forward='full')]),
    'mocov2, accel': ('CNN', dict(queue=64, out=32), lambda: [Accel()]),
    'dino': ('ViT', PROTOTYPES, lambda: []),
    'dino, simprune': ('ViT', PROTOTYPES, lambda: [SimPrune(.7, (1, 2))]),
    'dino, patch slimming': ('ViT', PROTOTYPES, lambda: [PatchSlimming(.7, (1, 2), images=1000)]),
    'byol': ('tiny', dict(hidden=64, out=32), lambda: []),
    'mocov2': ('tiny', dict(queue=64, out=32), lambda: []),
    'swav': ('tiny', dict(PROTOTYPES, out=32, queue=64, queue_start=0), lambda: []),
    'vicreg': ('tiny', dict(width=64), lambda: []),
    'barlowtwins': ('tiny', dict(width=64, scale=.1), lambda: []),
    'mocov3': ('ViT', dict(hidden=64, out=32), lambda: []),
    'dinov2': ('ViT', PROTOTYPES, lambda: [MaskBright()]),
    'dinov2, sinkhorn': ('ViT', dict(PROTOTYPES, centring='sinkhorn'), lambda: [MaskBright()])}

FORWARD = {'simsiam, recompute': lambda: partial(one_pass, advance=advance_twice),
           'simclr, parts': lambda: partial(in_parts, size=16//ranks()[1])}  # of the joint batch


class Seen(Technique):
    "Keeps what each micro-batch saw and drew."
    def __init__(self):
        super().__init__()
        self.log = []
    def before(self, walk):
        draw = lambda *name: torch.rand((), generator=walk.generator(*name)).item()
        pixels = [p.double().sum().item() for b in walk.branches if b.role == 'online' for p in b.meta.pixels]
        self.log.append(dict(rank=walk.rank, step=walk.step, micro=walk.micro, pixels=pixels, shared=draw('stage'),
                             own=draw('crop', walk.rank)))


class MaskBright(Technique):
    "Masks DINOv2's bright patches: a mask that depends on the crop alone, so that two processes mask as one."
    def before(self, walk):
        for b in walk.branches:
            if b.role == 'online' and b.view < 2:
                light = F.avg_pool2d(b.meta.pixels.mean(1, True), b.encoder.patch_embed.patch_size).flatten(1)
                b.meta.mask = light > light.mean(1, True) + .1


class Watched(Pretrain):
    "Keeps the gradients of the first step, as the optimiser gets them."
    first = None
    def on_before_optimizer_step(self, optimizer):
        if self.first is None:
            self.first = {n: p.grad.clone() for n, p in self.framework.named_parameters() if p.grad is not None}
        super().on_before_optimizer_step(optimizer)


class Drawn(Accel):
    "Keeps the depth of every step."
    def __init__(self):
        super().__init__()
        self.log = []
    def before(self, walk):
        super().before(walk)
        self.log.append(self.depth)


def train(name, seen=None, accumulate=1, epochs=1):
    "Three steps an epoch with the joint batch of 32; gradients of the first, the state at the end."
    small, args, techniques = CASES[name]
    encoder_name, encoder_args = ENCODERS[small]
    torch.manual_seed(0)
    cls = find('framework', name.split(',')[0])
    fw = cls(encoder(encoder_name, 32, **encoder_args), [seen] if seen else techniques(), **args)
    local = dict(local_views=2) if cls.augs in ('dino', 'swav') else {}
    how = FORWARD.get(name, lambda: one_pass)()
    module = Watched(fw, augmentations(cls.augs, 32, **local), lr=1e-3, seed=3, forward_pass=how)
    fit(module, take(load('digits', 'train', 32), 96, 0), epochs, 32//accumulate, device='cpu', accumulate=accumulate)
    return module.first, {k: v.clone() for k, v in fw.state_dict().items()}, module.history[0]['loss']


def one_of_two(rank, folder, port, names):
    "What the process of a rank finds, told of the other as torchrun tells it; of single cases, where those are named."
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK='0', WORLD_SIZE='2', LOCAL_WORLD_SIZE='2',
                       MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), TORCHELASTIC_RUN_ID='two')
    with open(f'{folder}/{rank}.log', 'w') as log:
        for printed in (1, 2): os.dup2(log.fileno(), printed)
    torch.set_num_threads(1)
    seen = Seen()
    found = {name: train(name) for name in names or CASES}
    drawn, state = Drawn(), None
    if not names:
        train('simsiam', seen, accumulate=2)
        state = train('mocov2, accel', drawn, epochs=17)[1]
    torch.save((found, seen.log, drawn.log, state), f'{folder}/{rank}.pt')
