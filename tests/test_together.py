"Every technique, and every ordered pair of two, on a CNN and a ViT: trains, resumes, tells its cost and can be copied, or is refused with a sentence."
import copy
from collections import Counter
from itertools import permutations

import pytest, torch

from effssl.recipes import names, recipe
from effssl.runs import build, complete, cost
from effssl.views import make_views

FAMILIES = {'CNN': dict(framework='simclr', encoder='timm:resnet18', encoder_args=dict(layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
            'ViT': dict(framework='dino', framework_args=dict(prototypes=16, hidden=32), encoder='vit_tiny_patch16_224',
                        encoder_args=dict(patch_size=8, embed_dim=24, depth=4, num_heads=3))}
ARGS = {'simprune': dict(blocks=[1, 3]), 'dynamicsimprune': dict(blocks=[2], compute=.8), 'evit': dict(blocks=[2]), 'tome': dict(blocks=[2, 4])}
SHOWN = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def made(r):
    framework, augs = build(r)
    framework.check(r.batch_size, [a.size for a in augs], 1000)
    return framework.train(), augs, torch.optim.SGD(framework.parameters(), .01)


def step(framework, augs, optimizer, n):
    "A step of training; its loss."
    torch.manual_seed(n)  # as the loop does
    loss = framework(framework.walk(make_views(SHOWN, torch.arange(4), augs, 0, n), epochs=10, epoch=3, progress=.3 + .1*n, step=n))
    optimizer.zero_grad(); loss.backward(); optimizer.step(); framework.after_step(.3)
    return loss.item()


def outcome(family, *techniques) -> str:
    "'trains', or the sentence of the refusal."
    try: parts = made(r := complete(recipe(FAMILIES[family], dataset='digits', image_size=32, batch_size=4, technique=' + '.join(techniques),
                                           technique_args={t: ARGS.get(t, {}) for t in techniques})))
    except ValueError as e: return str(e)
    first = step(*parts, 0)
    other = made(r)
    other[0].load_state_dict(copy.deepcopy(parts[0].state_dict())); other[2].load_state_dict(copy.deepcopy(parts[2].state_dict()))
    again = copy.deepcopy(parts[0])
    second = step(*parts, 1)
    assert torch.isfinite(torch.tensor([first, second])).all()
    assert step(*other, 1) == second, 'a killed run does not go on as it would have'
    assert again.state_dict().keys() == parts[0].state_dict().keys()
    assert 0 < cost(r, 2, draws=2)['ratio'] < 4
    return 'trains'


@pytest.mark.parametrize('family', FAMILIES)
def test_alone_and_in_pairs(family):
    every = sorted(names('technique'))
    found = {t: outcome(family, *t) for t in [*((a,) for a in every), *permutations(every, 2)]}
    told = Counter('trains' if o == 'trains' else 'refused' for o in found.values())
    print(f'{family}: {dict(told)} of {len(found)}')
    trains = {t for t, o in found.items() if o == 'trains'}
    for t, o in found.items():
        if o != 'trains': assert len(o) > 40 and len(t) > 0, (t, o)
    alone = {t[0] for t in trains if len(t) == 1}
    for a, b in permutations(alone, 2):  # two that work alone work together, or say why not
        assert (a, b) in trains or type_names(found[a, b]) >= 2, (a, b, found[a, b])
    assert len([t for t in trains if len(t) == 2]) >= len(alone)


def type_names(text): return sum(c.__name__ in text for c in names('technique').values())
