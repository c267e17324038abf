"Tables read records and nothing else: here with no record, and with records made up in a temporary folder."
import ast, json, shutil
from dataclasses import asdict

import IPython.display, pytest

from conftest import ROOT
from effssl.runs import complete, recipe, run_id
from effssl.sweep import read_grid

ACCURACY = {None: 40, 'evit': 30, 'tome': 52, 'simprune': 40.5, 'simwnw': 47, 'resize': 44}  # not the papers' order


def score(accuracy, protocol, error=1.): return dict(accuracy=accuracy, error=error, n=2000, protocol=protocol)


def record(line, error=1.):
    "A made-up record of a grid's line: accuracy grows by the epoch, linearly."
    r = complete(recipe(line)); a, paper = ACCURACY[r.technique] + r.seed, r.technique_args.get('preset') == 'paper'
    scores = dict(linear=score(a, f'linear probe, seed {r.seed}', error), knn20=score(a - 10, 'kNN k=20', error))
    history = [dict(epoch=e, knn=20 + (a - 30)*e/r.epochs, seconds=1., removed=.28 if paper else .25) for e in range(r.epochs + 1)]
    ratio = .76 if r.technique and not paper else 1.
    return dict(id=run_id(r), status='complete', recipe=asdict(r), scores=scores, cost=dict(flops_ratio=ratio, flops_per_image=1e9*ratio),
                environment=dict(device='an abacus'), history=history)


@pytest.fixture
def displayed(tmp_path, monkeypatch):
    "A function: what a table notebook displays, given records; all as text."
    def read(name, records):
        for d in ('tables', 'experiments/grids'): shutil.copytree(ROOT/'nbs'/d, tmp_path/'nbs'/d)
        folder = tmp_path/'results'/name[3:-6]; folder.mkdir(parents=True)
        for r in records: (folder/f'{r["id"]}.json').write_text(json.dumps(r))
        monkeypatch.chdir(tmp_path/'nbs'/'tables')
        shown, names = [], {}
        monkeypatch.setattr(IPython.display, 'display', lambda *o: shown.extend(o))
        for c in json.loads((tmp_path/'nbs'/'tables'/name).read_text())['cells']:
            if c['cell_type'] != 'code': continue
            *body, last = ast.parse(''.join(c['source'])).body
            if isinstance(last, ast.Expr):  # shown by Jupyter
                exec(compile(ast.Module(body, []), name, 'exec'), names)
                if (value := eval(compile(ast.Expression(last.value), name, 'eval'), names)) is not None: shown.append(value)
            else: exec(''.join(c['source']), names)
        return [o.data if isinstance(getattr(o, 'data', None), str) else o.to_string() if hasattr(o, 'to_string') else str(o) for o in shown]
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


def test_simwnw_without_records(displayed):
    found = displayed('90_simwnw.ipynb', [])
    assert sum('no record yet' in o for o in found) == 8 and sum('no records.' in o for o in found) == 1
    text = '\n'.join(found)
    assert '9 of 12 agree' in text and 'the reduction of epochs in 11 of 12 rows (not in CUB-200, SimCLR)' in text


def test_simwnw_with_records(displayed):
    "Compact is better than dense and than smaller views, as good as what has its accuracy; the dense training in fewer epochs ends at three quarters."
    lines = read_grid(ROOT/'nbs'/'experiments'/'grids'/'simwnw_table1_mini.yml')
    found = displayed('90_simwnw.ipynb', [record(l, .2) for l in lines])
    one = next(o for o in found if 'CIFAR-100' in o)
    rows = [r.split() for r in one.splitlines() if '47.5 ± 0.7' in r or '44.5 ± 0.7' in r or '40.5 ± 0.7' in r]
    assert len(rows) == 6, 'CIFAR-10 with SimSiam alone has records'
    assert {tuple(r[-3:]) for r in rows} == {('100.0', '100', '2'), ('100.0', '75', '2'), ('76.0', '76', '2')}
    cost = next(o for o in found if 'as good at epoch' in o).splitlines()
    ours = next(r for r in cost if r.startswith('SimWNW, compact')).split()[-7:]  # 20 + 17.5 in 8 epochs; dense, 20 + 10.5
    assert ours[0] == '8' and ours[-2:] == ['5', '48'] and ours[-3] == '–' and ours[2] == f'{20 + 17.5*.5/.76:.1f}'
    assert next(r for r in cost if r.startswith('dense, FLOPs')).split()[-7:][3] == '30.5'
    claims = next(o for o in found if 'compact − dense: ' in o).splitlines()
    assert 'compact − dense: better (+7.0' in claims[3] and 'compact − random blocks: within the noise' in claims[5]
    assert any('in training, removed %' in o and '28.0' in o for o in found)
