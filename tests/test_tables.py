"Tables read records and nothing else: here with no record, and with records made up in a temporary folder."
import ast, csv, json, re, shutil
from collections import Counter
from dataclasses import asdict

import IPython.display, pytest, yaml

from conftest import ROOT
from effssl.building import complete
from effssl.recipes import Recipe, recipe, run_id
from effssl.sweep import read_grid

ACCURACY = {  # not in the papers' order
    None: 40, 'evit': 30, 'tome': 52, 'simprune': 40.5, 'simwnw': 47, 'resize': 44, 'accel': 46}
GRIDS = ROOT/'nbs'/'experiments'/'grids'


def score(accuracy, protocol, error=1.): return dict(accuracy=accuracy, error=error, n=2000, protocol=protocol)


def record(line, error=1.):
    "A made-up record of a grid's line: accuracy grows by the epoch, linearly."
    r = complete(recipe(line))
    a, paper = ACCURACY[r.technique] + r.seed, r.technique_args.get('preset') in ('paper', 'held')
    scores = dict(linear=score(a, f'linear probe, seed {r.seed}', error), knn20=score(a - 10, 'kNN k=20', error))
    history = [dict(epoch=e, knn20=20 + (a - 30)*e/r.epochs, seconds=1., removed=.28 if paper else .25)
               for e in range(r.epochs + 1)]
    ratio = .76 if r.technique and not paper else 1.
    return dict(id=run_id(r), status='complete', recipe=asdict(r), scores=scores, history=history,
                cost=dict(flops_ratio=ratio, flops_per_image=1e9*ratio), environment=dict(device='an abacus'))


FILES = {p: json.loads(p.read_text()) for p in sorted((ROOT/'results').rglob('*.json'))}
RECORDS = [(p, r) for p, r in FILES.items() if 'recipe' in r]


def test_committed_records_have_their_ids():
    "Every record is found under the id that its recipe has today."
    assert len(RECORDS) > 50
    for path, r in RECORDS: assert run_id(Recipe(**r['recipe'])) == r['id'] == path.stem


@pytest.fixture
def displayed(tmp_path, monkeypatch):
    "A function: what a table notebook displays, given records; all as text."
    def read(name, records):
        for d in ('tables', 'experiments/grids'): shutil.copytree(ROOT/'nbs'/d, tmp_path/'nbs'/d)
        folder = tmp_path/'results'/name[3:-6]
        folder.mkdir(parents=True, exist_ok=True)
        for r in records: (folder/f'{r["id"]}.json').write_text(json.dumps(r))
        monkeypatch.chdir(tmp_path/'nbs'/'tables')
        shown, names = [], {}
        monkeypatch.setattr(IPython.display, 'display', lambda *o: shown.extend(o))
        for c in json.loads((tmp_path/'nbs'/'tables'/name).read_text())['cells']:
            if c['cell_type'] != 'code': continue
            *body, last = ast.parse(''.join(c['source'])).body
            if isinstance(last, ast.Expr):  # shown by Jupyter
                exec(compile(ast.Module(body, []), name, 'exec'), names)
                if (value := eval(compile(ast.Expression(last.value), name, 'eval'), names)) is not None:
                    shown.append(value)
            else: exec(''.join(c['source']), names)
        return [*map(as_text, shown)]
    return read


def as_text(shown) -> str:
    "What a person reads of a piece of Markdown, a table or anything else."
    if isinstance(getattr(shown, 'data', None), str): return shown.data
    return shown.to_string() if hasattr(shown, 'to_string') else str(shown)


def test_simprune_without_records(displayed):
    found = displayed('91_simprune.ipynb', [])
    assert sum('no record yet' in o for o in found) == 12 and 'want of records' in found[-1]
    assert '89.58 ± 0.17' in '\n'.join(found)


def test_simprune_with_records(displayed):
    lines = read_grid(GRIDS/'simprune_table8_mini.yml')
    other = record(lines[0] | dict(epochs=7))  # of no grid
    there = [record(l) for l in lines if l.get('technique_args', {}).get('keep_rate') != .7]
    found = displayed('91_simprune.ipynb', [other, *there])
    assert sum('no record yet' in o for o in found) == 8  # of Tables 3, 5, 6 and 8 some lines are there
    eight = next(o for o in found if 'CIFAR-100' in o)
    assert eight.count('40.5 ± 0.7') == 2 and eight.count('41.0 ± 0.7') == 2 and eight.count('76.0') == 6
    caption = next(o for o in found if 'cifar100' in o)
    told = ('cifar10 at 32 px or cifar100 at 32 px', '10,000 images', '4 epochs', 'kNN k=20', '2,000 test images',
            'seeds 0 and 1', 'an abacus')
    for words in told: assert words in caption
    assert 'ToMe > SimPrune > DINO > EViT' in found[-1]
    assert 'Of 5 differences that are beyond the noise in the paper' in found[-1]
    assert '3 go the same way here, 2 the other way' in found[-1]


def test_simwnw_without_records(displayed):
    found = displayed('90_simwnw.ipynb', [])
    assert sum('no record yet' in o for o in found) == 7 and sum('no records.' in o for o in found) == 1
    text = '\n'.join(found)
    assert '9 of 12 agree' in text and 'the reduction of epochs in 11 of 12 rows (not in CUB-200, SimCLR)' in text


def test_simwnw_with_records(displayed):
    "Compact is better than dense and smaller views, as good as random; dense in fewer epochs ends at three quarters."
    lines = [l for l in read_grid(GRIDS/'simwnw_table1_mini.yml') if l.get('technique') != 'back_razor']
    found = displayed('90_simwnw.ipynb', [record(l, .2) for l in lines])
    one = next(o for o in found if 'CIFAR-100' in o)
    rows = [r.split() for r in one.splitlines() if any(f'{a} ± 0.7' in r for a in (47.5, 44.5, 40.5))]
    assert len(rows) == 7, 'CIFAR-10 with SimSiam alone has records'
    assert {tuple(r[-3:]) for r in rows} == {('100.0', '100', '2'), ('100.0', '75', '2'), ('76.0', '76', '2')}
    cost = next(o for o in found if 'as good at epoch' in o).splitlines()
    ours = next(r for r in cost if r.startswith('SimWNW, compact')).split()[-7:]
    # 20 + 17.5 in 8 epochs; dense, 20 + 10.5
    assert ours[0] == '8' and ours[-2:] == ['5', '48'] and ours[-3] == '–' and ours[2] == f'{20 + 17.5*.5/.76:.1f}'
    assert next(r for r in cost if r.startswith('dense, FLOPs')).split()[-7:][3] == '30.5'
    claims = next(o for o in found if 'compact − dense: ' in o).splitlines()
    assert 'compact − dense: better (+7.0' in claims[4] and 'compact − random blocks: within the noise' in claims[6]
    assert any('in training, removed %' in o and '28.0' in o for o in found)


ACCEL = ROOT/'nbs'/'tables'/'accel.csv'


def key_of(name):
    "The function `key` of a table notebook."
    cells = json.loads((ACCEL.parent/name).read_text())['cells']
    found = [n for c in cells if c['cell_type'] == 'code' for n in ast.parse(''.join(c['source'])).body
             if getattr(n, 'name', '') == 'key']
    names = {}
    exec(compile(ast.Module(found, []), 'key', 'exec'), names)
    return names['key']


def printed(lines, columns, table, words) -> list[str]:
    "Values of these columns, in the lines of a table that hold these words (parted by |)."
    asked = {*words.split('|')}
    return [' '.join(l[c] for c in columns).strip() for l in lines if l['table'] == table and asked <= {*l.values()}]


def test_accel_csv():
    "As many values a table as are printed, some of them, and every key in both grids of its table."
    lines = list(csv.DictReader(ACCEL.open()))
    assert Counter(int(l['table']) for l in lines) == {1: 10, 2: 36, 3: 36, 4: 8, 5: 8, 6: 8, 7: 4, 8: 10, 9: 4, 10: 3}
    for table, words, value in (
            (1, 'MoCo v2|Accel, 800 epochs', '71.0 0.2 10.9'), (2, 'MoCo|Accel|fine-tuned|mean IoU', '76.9 0.1'),
            (3, 'Supervised|frozen|AP', '39.5 0.1'), (4, 'SimCLR|Nearby-Block', '61.3 0.2 2.8'),
            (5, 'MoCo v2|Hard Example', '66.1 0.2'), (6, 'SimCLR|HP', '63.1 0.2 3.4'), (7, 'M = 1', '62.4 0.2'),
            (8, 'Accel|Feat2', '33.5 0.3'), (9, 'Accel, 2×160 + 4×96', '74.1 0.1 5.7'), (10, '128 px', '53.5 0.2')):
        assert printed(lines, ('value', 'sd', 'days'), str(table), words) == [value]
    key = key_of('92_accel.ipynb')
    for table in (1, 4, 5, 6, 7, 8, 9, 10):
        named = {(l['framework'], l['key']) for l in lines if l['table'] == str(table)}
        for scale in ('', '_mini'):
            grid = read_grid(GRIDS/f'accel_table{table}{scale}.yml')
            names = dict(simclr='SimCLR', mocov1='MoCo', mocov2='MoCo v2', swav='SwAV')
            found = {(names[l['framework']], key(l, grid)) for l in grid}
            assert {n for n in named if n[0] in {f for f, _ in found}} <= found, (table, scale)
            order = [*dict.fromkeys(names[l['framework']] for l in grid)]
            assert order == [f for f in names.values() if f in order], 'grid and table are matched by their order'
            assert scale or {f for f, _ in found} == {f for f, _ in named}
            assert len(found)*len({l['seed'] for l in grid}) == len(grid), 'two lines have one key'
    tasks = [l for l in lines if l['table'] in '23']
    assert not any(l['key'] for l in tasks)
    for grid in (read_grid(GRIDS/f'accel_table2{scale}.yml') for scale in ('', '_mini')):
        found = dict.fromkeys((names[l['framework']], key(l, grid)) for l in grid)
        assert [*found] == [*dict.fromkeys((l['framework'], l['method'].lower()) for l in tasks if l['framework'])]


def test_accel_without_records(displayed):
    found = displayed('92_accel.ipynb', [])
    assert sum('no record yet' in o for o in found) == 10 and sum('no records.' in o for o in found) == 1
    text = '\n'.join(found)
    told = ('62.9 ± 0.2', 'product is 0.68, both together leave 0.65', '4.98 G\n(61%), not 3.6',
            '0.7 of the 1.2 points', '67.5 (Table 1) or 67.3 (Table 10)', '31 of 36 are 0.1 or more')
    for words in told: assert words in text


def of_tasks(line):
    "A made-up record with scores of detection and segmentation: 12 and more of a dense training, 2 less of others."
    r, scores = record(line), {}
    for i, (name, metric) in enumerate((n + end, m) for end in ('', '_frozen') for n, m in
                                       (('box_AP', 'AP'), ('box_AP50', 'AP50'))):
        scores[name] = {metric: 12 + i - 2*bool(line.get('technique')), 'metric': metric}
    for i, (name, metric) in enumerate((n + way, m) for way in ('_finetuned', '_frozen') for n, m in
                                       (('miou', 'mIoU'), ('pixels', 'pixel accuracy'))):
        scores[name] = {metric: 52 + i - 2*bool(line.get('technique')), 'metric': metric}
    r['scores'] |= {n: s | dict(unit='%', error=1., n=100, protocol='a look at it') for n, s in scores.items()}
    return r


@pytest.mark.parametrize('name, grid, seen', [
    ('92_accel', 'accel_table2_mini', [52, 55, 53, 50, 12, 15]),
    ('91_simprune', 'simprune_table7_mini', [12, 10, 52, 50])])
def test_tables_of_tasks(displayed, name, grid, seen):
    "What records say of detection and segmentation stands beside what is printed."
    found = displayed(f'{name}.ipynb', [of_tasks(l) for l in read_grid(GRIDS/f'{grid}.yml')])
    tables = [o for o in found if 'MoCo v2' in o and 'fine-tuned' in o or 'MS COCO' in o or 'ADE20k' in o]
    for value in seen: assert any(f'{value}.0 ± 0.0' in o for o in tables), value
    assert any('a look at it' in o for o in found)


def write_times(folder):
    "Made-up times of a step: of the dense one's, for MoCo three times, for SimCLR four fifths."
    methods = ('accel, hard_pairs False', 'accel, partial_backprop False', 'accel')
    rows = [dict(encoder='narrow', framework=f, method=m, time=t) for f, time in (('MoCo', 3.), ('SimCLR', .8))
            for m, t in [('dense', 1.), *((m, time) for m in methods)]]
    folder.mkdir(exist_ok=True)
    (folder/'accel-speed-cpu.json').write_text(json.dumps(dict(rows=rows, environment=dict(device='a sundial'))))


def write_stages(folder, runs):
    "Made-up probes of two stages of these runs."
    rows = [dict(run=r, stage=s, linear=score(20 + n, 'linear probe')) for n, r in enumerate(runs)
            for s in ('stem', 'layer1')]
    folder.mkdir()
    (folder/'stages-mini.json').write_text(json.dumps(dict(rows=rows)))


def test_accel_with_records(displayed, tmp_path):
    "Accel is better than dense; longer trainings end at the dense one's time; random pairs are as good as hard ones."
    read = lambda name: read_grid(GRIDS/f'accel_{name}.yml')
    records = {r['id']: r for g in ('table6_mini', 'table1_mini', 'table8') for r in map(record, read(g))}
    long = [r['id'] for r in map(record, read('table6_mini')) if r['recipe']['epochs'] > 8]
    assert len(long) == 6
    write_times(tmp_path/'results')
    write_stages(tmp_path/'results'/'accel', [r['id'] for r in map(record, read('table8_mini'))])
    found = displayed('92_accel.ipynb', [*records.values()])
    one = next(o for o in found if 'Accel, 800 epochs' in o).splitlines()
    assert sum('46.5 ± 0.7' in l for l in one) == 5 and sum('40.5 ± 0.7' in l for l in one) == 5
    at = next(i for i, o in enumerate(found) if o == '**For the same time**')
    same = next(l for l in found[at + 1].splitlines() if l.startswith('PB, same time')).split()
    assert same[-1] == '100' and same[-8] == '10'
    claims = next(o for o in found if 'hard − random pairs: ' in o)
    assert 'hard − random pairs: within the noise' in claims and 'PB − dense, as much time: better' in claims
    assert 'no records' not in claims
    eight = next(o for o in found if 'Feat1 (stem)' in o)
    assert '20.5 ± 0.7' in eight and '22.5 ± 0.7' in eight
    assert any('sundial' in o for o in found)


DUAL = ROOT/'nbs'/'tables'/'dual_gating.csv'
SETS = {'cifar10': 'CIFAR-10', 'stl10': 'STL-10', 'cifar100': 'CIFAR-100', 'imagenet100': 'ImageNet-100'}
FRAMEWORKS = {'vicreg': 'VICReg', 'barlowtwins': 'Barlow Twins'}


def dual_grid(table, scale): return read_grid(GRIDS/f'dual_gating_table{table}{scale}.yml')


def dual_record(line, error=.2):
    "Made up: a gated run's dense network has 50 %, its gated one 45 %, of both views 40 %; a multiplier is on budget."
    r, args, own = asdict(recipe(line)), line.get('technique_args', {}), line.get('framework_args', {})
    low = 5*bool(args.get('both')) + 20*(own.get('invariance') == 0) - r['seed']
    def scores(accuracy):
        return dict(linear=score(accuracy - low, f'linear probe, seed {r["seed"]}', error),
                    knn1=score(accuracy - low - 10, 'kNN k=1', error),
                    knn20=score(accuracy - low - 8, 'kNN k=20', error))
    words = [re.sub(r'\W', '', str(v)) for v in (line['framework'], args, own, r['seed'])]
    made = dict(id='-'.join(words), status='complete', recipe=r | dict(image_size=32), history=[],
                scores=scores(50 if args else 52), environment=dict(device='an abacus'))
    if args:
        costs = dict(reduction=100 - 100*args['budget'] - (0 if 'constraint' in args else 8), macs=1., dense_macs=2.)
        made['networks'] = {n: dict(scores=scores(a), **costs) for n, a in (('gated', 45), ('slim', 43))}
    return made


def test_dual_csv():
    "As many values a table as are printed, and some of them."
    lines = list(csv.DictReader(DUAL.open()))
    assert Counter(l['table'] for l in lines) == {'1': 58, '2': 54, '3': 40, '4': 40, '5': 40, '6': 60, 'log': 36}
    for table, words, value in (
            ('1', 'STL-10|VICReg|3.33e8', '86.15 0.10'), ('1', 'CIFAR-10|VICReg-Gating|40', '89.87 0.03 61.10'),
            ('1', 'ImageNet-100|VICReg-Dual|50|gated', '76.24 0.12 47.69'),
            ('2', 'ImageNet-100|CIFAR-10|40|gated', '50.14'), ('3', 'STL-10|BT-Dual|30|gated', '76.02  64.12'),
            ('4', 'CIFAR-100|VICReg-Dual, 2 × ResNet-18|10|gated', '52.44  85.77'),
            ('5', 'STL-10|VICReg-Dual, w/o invariance|20|gated', '20.81  82.45'),
            ('6', 'STL-10|VICReg-Dual, + warm-up|10|gated', '77.44  73.20'), ('log', 'STL-10|10|dense', '76.6125')):
        assert printed(lines, ('value', 'sd', 'reduction'), table, words) == [value]


@pytest.mark.parametrize('table', '123456')
def test_dual_csv_and_grids(table):
    "Every key of a table in both its grids; they are matched by their order."
    lines = [l for l in csv.DictReader(DUAL.open()) if l['table'] == table]
    key, grid, mini = key_of('93_dual_gating.ipynb'), dual_grid(table, ''), dual_grid(table, '_mini')
    named = {(l['source' if table == '2' else 'dataset'], l['framework'], l['key']) for l in lines}
    assert {(SETS[l['dataset']], FRAMEWORKS[l['framework']], key(l, grid)) for l in grid} == named
    assert len(grid) == len(named)
    places = dict.fromkeys((SETS[l['dataset']], FRAMEWORKS[l['framework']]) for l in grid)
    assert table == '2' or [*places] == [*dict.fromkeys((l['dataset'], l['framework']) for l in lines)]
    found = {(FRAMEWORKS[l['framework']], key(l, mini)) for l in mini}
    assert len(found)*2 == len(mini) and {(f, k.replace('budget 0.1', 'budget 0.5')) for f, k in found} <= found
    wanted = {(f, k) for _, f, k in named if 'budget' not in k or 'budget 0.1' in k or 'budget 0.5' in k}
    assert {(f, k) for f, k in found if 'lagrange' not in k} == wanted


def test_dual_without_records(displayed):
    found = displayed('93_dual_gating.ipynb', [])
    text = '\n'.join(found)
    assert text.count('no record yet') == 7  # five tables, the transfer, the budgets reached
    assert text.count('No records: ') == 1
    told = ('88.94 ± 0.06', '68 of 72 are right', '3 are wrong', '1-NN: 11 of 20 have one value',
            'FLOPs R.: 12 of 18 have one value', '1,813,561,344', '555,417,600, 79% of it',
            'penalty 5·(0.217 − 0.1)² = 0.068', 'Two encoders save more: in 10 of 10')
    for words in told: assert words in text


def test_dual_with_records(displayed, tmp_path):
    "Miniatures of Tables 1 and 5 and a transfer; no line without invariance is taken for one with it."
    records = {r['id']: r for t in '15' for r in map(dual_record, dual_grid(t, '_mini'))}
    assert len(records) == 18
    one = next(r for r in records.values() if r['recipe']['technique_args'] == {'budget': .5})
    folder = tmp_path/'results'/'dual_gating'
    folder.mkdir(parents=True)
    moved = dict(run=one['id'], evaluated=dict(dataset='cifar100'), scores=one['scores'], networks=one['networks'])
    (folder/'evaluate-cifar100-0.json').write_text(json.dumps(moved))
    found = displayed('93_dual_gating.ipynb', [*records.values()])
    table = next(o for o in found if 'VICReg-Dual, Lagrange' in o).splitlines()
    three = [l for l in table if all(f'{a} ± 0.7' in l for a in (50.5, 45.5, 43.5))]
    assert len(three) == 4, 'two budgets of the penalty, two of the multiplier'
    assert sum('40.5 ± 0.7' in l for l in table) == 2
    assert any('82.0' in l for l in table) and any('90.0' in l for l in table)
    claims = next(o for o in found if 'kNN, k = 20' in o and 'Lagrange − penalty' in o)
    assert claims.count('+5.00') == 4  # gated − VICReg-Gating
    assert claims.count('-2.00') == 8  # slim − gated, dense − VICReg
    assert 'separate norms' not in claims and 'no records' not in claims
    five = next(o for o in found if 'w/o invariance' in o).splitlines()
    assert sum('40.5 ± 0.7' in l for l in five) == 2 and sum('20.5 ± 0.7' in l for l in five) == 2
    assert any('18.0' in o and '10.0' in o and 'Lagrange' in o for o in found), 'FLOPs left'
    assert any('cifar100' in o and '45.0' in o for o in found), 'transfer'
    assert not any('no record yet' in o for o in found), 'the lines of Table 1 are in all others'


def test_claims_name_grids_that_are_there():
    claims = yaml.safe_load((ROOT/'nbs'/'tables'/'claims.yml').read_text())
    named = {c['grid'] for some in claims.values() for c in some if 'grid' in c}
    assert named <= {p.stem for p in GRIDS.glob('*.yml')}
