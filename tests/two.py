"What each process of test_distributed runs: a short training of each framework; torchrun starts two, the test itself one."
import sys

import torch
import torch.nn.functional as F
from effssl.data import load, take
from effssl.encoders import encoder
from effssl.lockstep import Technique
from effssl.recipes import find
from effssl.techniques.accel import Accel
from effssl.techniques.simprune import SimPrune
from effssl.techniques.simwnw import SimWNW
from effssl.train import Pretrain, fit, ranks
from effssl.views import augmentations

VIT = dict(patch_size=8, embed_dim=48, depth=2, num_heads=3)
CNN = dict(layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])
CASES = {'simclr': ('timm:resnet10t', {'channels': [8, 16, 32, 64], 'stem': 'imagenet'}, {}),
         'simsiam': ('timm:resnet10t', {'channels': [8, 16, 32, 64], 'stem': 'imagenet'}, {'width': 64}),
         'simsiam, compact': ('timm:resnet18', CNN, {'width': 64}),
         'simsiam, exact': ('timm:resnet18', CNN, {'width': 64}),
         'simsiam, paper': ('timm:resnet18', CNN, {'width': 64}),
         'simclr, accel': ('timm:resnet18', CNN, {'temperature': .5}),
         'simclr, accel, full': ('timm:resnet18', CNN, {'temperature': .5}),
         'mocov2, accel': ('timm:resnet18', CNN, {'queue': 64, 'out': 32}),
         'dino': ('vit_tiny_patch16_224', VIT, {'prototypes': 50, 'hidden': 64, 'freeze_epochs': 0}),
         'dino, simprune': ('vit_tiny_patch16_224', VIT, {'prototypes': 50, 'hidden': 64, 'freeze_epochs': 0}),
         'byol': ('timm:resnet10t', {'channels': [8, 16, 32, 64], 'stem': 'imagenet'}, {'hidden': 64, 'out': 32}),
         'mocov2': ('timm:resnet10t', {'channels': [8, 16, 32, 64], 'stem': 'imagenet'}, {'queue': 64, 'out': 32}),
         'swav': ('timm:resnet10t', {'channels': [8, 16, 32, 64], 'stem': 'imagenet'},
                  {'hidden': 64, 'out': 32, 'prototypes': 50, 'freeze_epochs': 0, 'queue': 64, 'queue_start': 0}),
         'vicreg': ('timm:resnet10t', {'channels': [8, 16, 32, 64], 'stem': 'imagenet'}, {'width': 64}),
         'barlowtwins': ('timm:resnet10t', {'channels': [8, 16, 32, 64], 'stem': 'imagenet'}, {'width': 64, 'scale': .1}),
         'mocov3': ('vit_tiny_patch16_224', VIT, {'hidden': 64, 'out': 32}),
         'dinov2': ('vit_tiny_patch16_224', VIT, {'prototypes': 50, 'hidden': 64, 'freeze_epochs': 0}),
         'dinov2, sinkhorn': ('vit_tiny_patch16_224', VIT, {'prototypes': 50, 'hidden': 64, 'freeze_epochs': 0, 'centring': 'sinkhorn'})}


class Seen(Technique):
    "Keeps what each micro-batch saw and drew."
    def __init__(self): super().__init__(); self.log = []
    def before(self, walk):
        draw = lambda *name: torch.rand((), generator=walk.generator(*name)).item()
        self.log.append(dict(rank=walk.rank, step=walk.step, micro=walk.micro, shared=draw('stage'), own=draw('crop', walk.rank),
                             pixels=[p.double().sum().item() for b in walk.branches if b.role == 'online' for p in b.meta['pixels']]))


class MaskBright(Technique):
    "Masks DINOv2's bright patches: a mask that depends on the crop alone, so that two processes mask as one."
    def before(self, walk):
        for b in walk.branches:
            if b.role == 'online' and b.view < 2:
                light = F.avg_pool2d(b.meta['pixels'].mean(1, True), VIT['patch_size']).flatten(1)
                b.meta['mask'] = light > light.mean(1, True) + .1


class Watched(Pretrain):
    "Keeps the gradients of the first step, as the optimiser gets them."
    first = None
    def on_before_optimizer_step(self, optimizer):
        if self.first is None: self.first = {n: p.grad.clone() for n, p in self.framework.named_parameters() if p.grad is not None}
        super().on_before_optimizer_step(optimizer)


class Drawn(Accel):
    "Keeps the depth of every step."
    def __init__(self): super().__init__(); self.log = []
    def before(self, walk): super().before(walk); self.log.append(self.depth)


def train(name, seen=None, accumulate=1, epochs=1):
    "Three steps an epoch with the joint batch of 32; gradients of the first, the state at the end."
    encoder_name, encoder_args, args = CASES[name]
    torch.manual_seed(0)
    cls = find('framework', name.split(',')[0])
    own = {'simsiam, compact': lambda: [SimWNW(.25)], 'simsiam, exact': lambda: [SimWNW(.5, how='exact')],
           'simsiam, paper': lambda: [SimWNW(preset='paper')], 'simclr, accel': lambda: [Accel()],
           'simclr, accel, full': lambda: [Accel(forward='full')], 'mocov2, accel': lambda: [Accel()], 'dino, simprune': lambda: [SimPrune(.7, (1, 2))],
           'dinov2': lambda: [MaskBright()], 'dinov2, sinkhorn': lambda: [MaskBright()]}
    techniques = [seen] if seen else own.get(name, list)()
    fw = cls(encoder(encoder_name, 32, **encoder_args), techniques, **args)
    local = dict(local_views=2) if cls.augs in ('dino', 'swav') else {}
    module = Watched(fw, augmentations(cls.augs, 32, **local), lr=1e-3, seed=3)
    fit(module, take(load('digits', 'train', 32), 96, 0), epochs, 32//accumulate, device='cpu', accumulate=accumulate)
    return module.first, {k: v.clone() for k, v in fw.state_dict().items()}, module.history[0]['loss']


if __name__ == '__main__':
    torch.set_num_threads(1)
    seen = Seen()
    found = {name: train(name) for name in sys.argv[2:] or CASES}
    drawn, state = Drawn(), None
    if not sys.argv[2:]: train('simsiam', seen, accumulate=2); state = train('mocov2, accel', drawn, epochs=17)[1]
    torch.save((found, seen.log, drawn.log, state), f'{sys.argv[1]}/{ranks()[0]}.pt')
