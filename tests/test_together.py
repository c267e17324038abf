"Every technique with every framework, and in pairs: trains, resumes, tells its cost, can be copied; or is refused."
import copy, json
from collections import Counter
from functools import lru_cache
from itertools import combinations

import pytest, torch

from effssl.building import build, complete, cost
from effssl.cost import training_cost
from conftest import ROOT
from effssl.recipes import Recipe, find, names, recipe
from effssl.records import write_json
from effssl.views import make_views
from matrix import FAMILIES, NEED_TOKENS, NEW, SMALL, TECHNIQUES, WAYS, WORKS

SHOWN = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FOUND = ROOT/'results'/'together.json'  # what tables/94_together shows; `python tests/test_together.py` writes it anew
NOISE = ('size mismatch', 'Traceback', 'object has no', 'tensor', 'dimension', 'NoneType', 'must match')


IN = {'ResNet': 'simclr', 'ViT': 'dino'}  # frameworks that pairs are tried in


@lru_cache
def views(augs, n): return make_views(SHOWN, torch.arange(4), augs, 0, n)


def made(r):
    "The framework of a recipe, checked as a run does before it trains, and its views."
    framework, augs = build(r)
    framework.check(r.batch_size, [a.size for a in augs], 1000)
    return framework.train(), augs


def step(framework, augs, n) -> float:
    "A step of training; its loss."
    progress = .3 + .1*n
    shown = views(tuple(framework.views_at(augs, progress)), n)
    torch.manual_seed(n)  # as the loop does
    loss = framework(framework.walk(shown, epochs=10, epoch=3, progress=progress, step=n))
    loss.backward()
    framework.before_step(3)
    torch.optim.SGD(framework.parameters(), .01).step()
    framework.zero_grad()
    framework.after_step(progress)
    return loss.item()


def small(family:str, framework:str, techniques:dict) -> Recipe:
    "A recipe that lacks nothing but `complete`."
    args = techniques if len(techniques) != 1 else next(iter(techniques.values()))
    return recipe(FAMILIES[family], dataset='digits', image_size=32, batch_size=4, framework=framework,
                  framework_args=SMALL.get(framework, {}), technique=' + '.join(techniques) or None,
                  technique_args=args)


@lru_cache
def dense_flops(family, framework): return cost(complete(small(family, framework, {})), 4)['flops']


def outcome(family:str, framework:str, techniques:dict, priced:bool=False) -> str:
    "'trains', or the sentence of the refusal."
    try:
        r = complete(small(family, framework, techniques))
        fw, augs = made(r)
    except ValueError as e: return str(e)
    first = step(fw, augs, 0)
    resumed, copied = made(r)[0], copy.deepcopy(fw)
    resumed.load_state_dict(fw.state_dict())
    second = step(fw, augs, 1)
    assert torch.tensor([first, second]).isfinite().all()
    assert step(resumed, augs, 1) == second, 'a killed run does not go on as it would have'
    assert step(copied, augs, 1) == second, 'a copy does not go on as the original'
    if priced:
        spent = training_cost(fw, lambda t: views(tuple(fw.views_at(augs, t)), 0), assume=True)['flops']
        assert 0 < spent/dense_flops(family, framework) < 4
    return 'trains'


def check_sentence(said:str, *classes:str):
    "A refusal is a sentence for a person, and names these."
    assert len(said.split()) >= 4 and not [n for n in NOISE if n in said], said
    assert all(c in said for c in classes), (classes, said)


def alone(family:str, framework:str, priced:bool=False) -> dict[str, str]:
    return {t: outcome(family, framework, {t: TECHNIQUES[t]}, priced) for t in sorted(names('technique'))}


def in_pairs(family:str) -> dict[str, str]:
    "By 'one + other', in the order of their names."
    return {' + '.join(pair): outcome(family, IN[family], {t: TECHNIQUES[t] for t in pair})
            for pair in combinations(sorted(names('technique')), 2)}


def check_current(found:dict, *where:str):
    "That the site shows what was found."
    shown = json.loads(FOUND.read_text())
    for key in where: shown = shown.get(key, {})
    off = {k: said for k, said in found.items() if shown.get(k) != said}
    assert not off and shown.keys() == found.keys(), f'{FOUND.name} is not current, write it anew: {where} {off}'


def counted(found:dict) -> dict:
    return dict(Counter('train' if said == 'trains' else 'are refused' for said in found.values()))


@pytest.mark.parametrize('framework', sorted(names('framework')))
@pytest.mark.parametrize('family', FAMILIES)
def test_alone(family, framework, record_property, pytestconfig):
    "Those that work on the encoder do; in one framework (slow: in all) in each of their ways, with their cost."
    whole = framework == IN[family] or pytestconfig.getoption('--slow')
    found = alone(family, framework, whole)
    check_current(found, 'alone', family, framework)
    ways = {f'{t} {args}': outcome(family, framework, {t: args}) for t, args in WAYS if whole and t in WORKS[family]}
    record_property(f'alone, {family}', counted(found | ways))
    works = WORKS[family]
    if framework in NEED_TOKENS:
        works = set() if family == 'ResNet' else works - {'last_block', 'simwnw', 'selfslim', 'fast_moco'}
    assert {t for t, said in found.items() if said == 'trains'} - NEW == works
    for way, said in (found | ways).items():
        if said != 'trains': check_sentence(said)
        assert said == 'trains' or way in found or family == 'ViT' or not works, (way, said)


TOLD = [('evit', 'last_block'), ('simwnw', 'simprune'), ('accel', 'dual_gating'), ('tome', 'simprune'),
        *((t, 'rotation') for t in TECHNIQUES if t != 'rotation')]


@pytest.mark.parametrize('family', FAMILIES)
def test_in_pairs(family, record_property, pytestconfig):
    "Two that work alone work together, or the sentence names both; those in the table do. Slow: either order, priced."
    found = in_pairs(family)
    check_current(found, 'pairs', family)
    record_property(f'in pairs, {family}', counted(found))
    found = {tuple(pair.split(' + ')): said for pair, said in found.items()}
    if pytestconfig.getoption('--slow'):
        turned = [pair[::-1] for pair in found]
        found |= {pair: outcome(family, IN[family], {t: TECHNIQUES[t] for t in pair}, True) for pair in turned}
    for pair in map(tuple, map(sorted, TOLD)):
        if not WORKS[family] & {*pair} - {'rotation'}: continue
        record_property('', f'{family}: {" + ".join(pair)} → {found[pair]}')
    for pair, said in found.items():
        both = {*pair} <= WORKS[family]
        if said != 'trains': check_sentence(said, *(find('technique', t).__name__ for t in pair if both))
        assert (said == 'trains') == (found.get(pair[::-1], said) == 'trains'), pair
        assert said == 'trains' or not both or pair not in TOLD, (pair, said)


if __name__ == '__main__':
    write_json(FOUND, dict(
        alone={family: {fw: alone(family, fw) for fw in sorted(names('framework'))} for family in FAMILIES},
        pairs={family: in_pairs(family) for family in FAMILIES}, frameworks=IN))
