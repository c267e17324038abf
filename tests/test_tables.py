"Tables read records and nothing else: here with no record, and with records made up in a temporary folder."
import json, shutil
from dataclasses import asdict

import IPython.display, pytest

from conftest import ROOT
from effssl.runs import complete, recipe, run_id
from effssl.sweep import read_grid

ACCURACY = {None: 40, 'evit': 30, 'tome': 52, 'simprune': 40.5}  # not the paper's order


def score(accuracy, protocol): return dict(accuracy=accuracy, error=1., n=2000, protocol=protocol)


def record(line):
    "A made-up record of a grid's line."
    r = complete(recipe(line)); a = ACCURACY[r.technique] + r.seed
    scores = dict(linear=score(a, f'linear probe, seed {r.seed}'), knn20=score(a - 10, 'kNN k=20'))
    return dict(id=run_id(r), status='complete', recipe=asdict(r), scores=scores, cost=dict(flops_ratio=.76 if r.technique else 1.),
                environment=dict(device='an abacus'))


@pytest.fixture
def displayed(tmp_path, monkeypatch):
    "A function: what a table notebook displays, given records; all as text."
    def read(name, records):
        for d in ('tables', 'experiments/grids'): shutil.copytree(ROOT/'nbs'/d, tmp_path/'nbs'/d)
        (tmp_path/'results/simprune').mkdir(parents=True)
        for r in records: (tmp_path/'results/simprune'/f'{r["id"]}.json').write_text(json.dumps(r))
        monkeypatch.chdir(tmp_path/'nbs'/'tables')
        shown, names = [], {}
        monkeypatch.setattr(IPython.display, 'display', lambda *o: shown.extend(o))
        for c in json.loads((tmp_path/'nbs'/'tables'/name).read_text())['cells']:
            if c['cell_type'] == 'code': exec(''.join(c['source']), names)
        shown.append(names['verdict']('linear'))
        return [o.data if hasattr(o, 'data') else o.to_string() if hasattr(o, 'to_string') else o for o in shown]
    return read


def test_simprune_without_records(displayed):
    found = displayed('91_simprune.ipynb', [])
    assert sum('no record yet' in o for o in found) == 10 and 'want of records' in found[-1]
    assert '89.58 ± 0.17' in '\n'.join(found)


def test_simprune_with_records(displayed):
    lines = read_grid(ROOT/'nbs'/'experiments'/'grids'/'simprune_table8_mini.yml')
    other = record(lines[0] | dict(epochs=7))  # of no grid
    found = displayed('91_simprune.ipynb', [other, *(record(l) for l in lines if l.get('technique_args', {}).get('keep_rate') != .7)])
    assert sum('no record yet' in o for o in found) == 6  # of Tables 3, 5, 6 and 8 some lines are there
    eight = next(o for o in found if 'CIFAR-100' in o)
    assert eight.count('40.5 ± 0.7') == 2 and eight.count('41.0 ± 0.7') == 2 and eight.count('76.0') == 6
    caption = next(o for o in found if 'cifar100' in o)
    for words in ('cifar10 at 32 px or cifar100 at 32 px', '10,000 images', '4 epochs', 'kNN k=20', '2,000 test images', 'seeds 0 and 1', 'an abacus'): assert words in caption
    assert 'ToMe > SimPrune > DINO > EViT' in found[-1]
    assert 'Of 5 differences that are beyond the noise in the paper, 3 go the same way here, 2 the other way' in found[-1]
