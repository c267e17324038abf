"Steps that run twice and batches in parts, with every technique: the same to the bit, or a sentence."
import pytest, torch

import effssl.recompute as recompute
from effssl.building import build, complete
from effssl.lockstep import advance
from effssl.recompute import advance_twice, check_parts, check_twice, in_parts
from matrix import FAMILIES, TECHNIQUES, WAYS
from test_together import made, small, views

CASES = [(family, name, args) for family in FAMILIES for name, args in [*TECHNIQUES.items(), *WAYS]]


def step(r, forward):
    "Loss, gradients, buffers and the next random number of a step."
    fw, augs = made(r)
    shown = views(tuple(fw.views_at(augs, .5)), 2)
    torch.manual_seed(2)
    loss = forward(fw, shown, dict(epochs=10, epoch=3, progress=.5, step=2))
    loss.backward()
    return [loss.detach(), *[p.grad for p in fw.parameters() if p.grad is not None], *fw.buffers(), torch.rand(())]


def fits(family, name, args):
    "A complete recipe, or nothing where the technique does not work on the family at all."
    try:
        r = complete(small(family, 'byol', {name: args}))
        made(r)
        return r
    except ValueError: return pytest.skip('refused by itself')


def same(a, b): return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize('family, name, args', CASES, ids=map(str, CASES))
def test_twice_is_once(family, name, args):
    r = fits(family, name, args)
    try: check_twice(*build(r))
    except ValueError as e:
        assert 'does not do the second time' in str(e) and name in ('accel', 'simwnw')
        return
    kept, again = (step(r, lambda fw, shown, clock: fw(fw.walk(shown, **clock), advance=how))
                   for how in (advance, advance_twice))
    assert same(kept, again)


@pytest.mark.parametrize('family, name, args', CASES, ids=map(str, CASES))
def test_parts_twice_are_parts_once(family, name, args, monkeypatch):
    r = fits(family, name, args)
    try: check_parts(made(r)[0], 4, 2)
    except ValueError as e:
        assert 'leave micro_batch out' in str(e) and name in ('accel', 's3l')
        return
    def parts(fw, shown, clock): return in_parts(fw, shown, clock, 2)[0]
    again = step(r, parts)
    monkeypatch.setattr(recompute, 'twice', lambda run, module, x: run(x))
    try: kept = step(r, parts)
    # masks move running statistics in place, which a walk of the same graph may have seen: only the copy does not mind
    except RuntimeError as e: assert 'inplace' in str(e) and name == 'simwnw'
    else: assert same(kept, again)
