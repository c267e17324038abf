"The repository itself: export, cleanliness, README, dependencies, style."
import ast, json, os, re, shutil, subprocess, sys
from configparser import ConfigParser
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import nbformat, pytest, yaml

from changed import graph
from conftest import ROOT
from stored import figures_of
from test_notebooks import NOTEBOOKS

BIN = Path(sys.executable).parent
INI = ConfigParser(delimiters=['='], interpolation=None)
INI.read(ROOT/'settings.ini')
TRACKED = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True).stdout.split()


def notebook(name): return json.loads((ROOT/'nbs'/name).read_text())


def cells(name): return notebook(name)['cells']


def copy_repo(tmp_path):
    for f in ('nbs', 'effssl'):
        shutil.copytree(ROOT/f, tmp_path/f, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'runs'))
    shutil.copy(ROOT/'settings.ini', tmp_path)
    return tmp_path


def changed(tmp_path, folder, suffix):
    return [f for f in TRACKED if f.startswith(f'{folder}/') and f.endswith(suffix)
            and (tmp_path/f).read_bytes() != (ROOT/f).read_bytes()]


def test_export_is_in_sync(tmp_path):
    subprocess.run([BIN/'nbdev_export'], cwd=copy_repo(tmp_path), check=True)
    assert not changed(tmp_path, 'effssl', '.py'), 'run nbdev_export'


def test_notebooks_are_clean(tmp_path):
    subprocess.run([BIN/'nbdev_clean'], cwd=copy_repo(tmp_path), check=True)
    assert not changed(tmp_path, 'nbs', '.ipynb'), 'run nbdev_clean'


def test_readme_is_in_sync(): subprocess.run([sys.executable, ROOT/'tests/readme.py', '--check'], check=True)


@pytest.mark.parametrize('path', ['nbs/02_lockstep.ipynb', pytest.param('nbs', marks=pytest.mark.slow)])
def test_nbdev_test(path):
    "The command that README names: on one notebook, and with --slow on all, which test_notebooks executes anyway."
    done = subprocess.run([BIN/'nbdev_test', '--n_workers', '2', '--path', path], cwd=ROOT, capture_output=True,
                          text=True, timeout=3600)
    assert done.returncode == 0 and 'Success' in done.stdout, done.stdout[-2000:] + done.stderr[-6000:]


def test_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT/'CITATION.cff').read_text())
    assert {'cff-version', 'message', 'title', 'authors'} <= cited.keys() and cited['type'] == 'software'
    assert cited['version'] == INI['DEFAULT']['version'] and cited['url'] == INI['DEFAULT']['git_url']
    assert f"version = {{{cited['version']}}}" in (ROOT/'README.md').read_text()


def test_dependencies_have_one_source():
    env = yaml.safe_load((ROOT/'environment.yml').read_text())
    assert env['dependencies'] == ['python=3.11', 'pip', {'pip': ['-e .[dev]']}]
    assert 'dependencies' not in (ROOT/'pyproject.toml').read_text()
    required = ' '.join(v for k, v in INI['DEFAULT'].items() if k.endswith('requirements')).split()
    listed = {re.split(r'[<>=\[]', r)[0] for r in required}
    assert {'torch', 'torchvision', 'timm', 'jupyterlab', 'papermill', 'nbdev', 'matplotlib', 'seaborn', 'umap-learn',
            'ruff'} <= listed


def test_library_runs_bare(tmp_path):
    "With only the seven packages it promises to need, and what those bring along."
    code = '''
import importlib, importlib.metadata as metadata, pkgutil, sys
from importlib.machinery import PathFinder
absent = {'matplotlib', 'seaborn', 'umap', 'papermill', 'IPython', 'jupyterlab', 'ipywidgets', 'sklearn', 'skimage',
          'nbdev', 'fastcore', 'lightly', 'segmentation_models_pytorch'}
find = PathFinder.find_spec
def found(cls, name, *args, **kw): return None if name.split('.')[0] in absent else find(name, *args, **kw)
PathFinder.find_spec = classmethod(found)
distribution = metadata.distribution
def only_present(name):
    if name.lower() in absent: raise metadata.PackageNotFoundError(name)
    return distribution(name)
metadata.distribution = only_present
import effssl
for m in pkgutil.walk_packages(effssl.__path__, 'effssl.'): importlib.import_module(m.name)
from effssl.cli import main
sys.exit(main(['cost', '--dataset', 'cifar10', '--encoder', 'resnet18', '--json']))
'''
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, 'EFFSSL_DATA': str(tmp_path)})
    assert done.returncode == 0 and json.loads(done.stdout)['ratio'] == 1, done.stderr[-3000:]


HEAVY = ('lightning', 'kornia', 'pandas', 'torchvision', 'timm', 'torch', 'numpy')
SMALL = '''import effssl.lockstep, pkgutil, importlib, effssl.frameworks as f, effssl.techniques as t
for p in (f, t):
    for m in pkgutil.iter_modules(p.__path__): importlib.import_module(f"{p.__name__}.{m.name}")'''


STARTS = {  # code, and which of the heavy packages it may import
    'cli': ('import effssl.cli', ()),
    'help': ("from effssl.cli import main; main(['--help'])", ()),
    'help of a verb': ("from effssl.cli import main; main(['sweep', '--help'])", ()),
    'help with all names': ("from effssl.cli import main; main(['pretrain', '--help'])", ('torch', 'numpy')),
    'mistyped option': ("from effssl.cli import main; main(['pretrain', '--epohcs', '3'])", ()),
    'mistyped value': ("from effssl.cli import main; assert main(['pretrain', '--epochs', 'ten']) == 2", ()),
    'list': ("from effssl.cli import main; main(['list'])", ('torch', 'numpy')),
    'lockstep, frameworks and techniques': (SMALL, ('torch', 'numpy'))}


@pytest.mark.parametrize('code, may', STARTS.values(), ids=STARTS)
def test_what_an_import_brings_in(code, may):
    "In a fresh process: what only looks up names starts at once."
    tail = f"import sys; print('brought', *[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, '-c', f'try:\n exec({code!r})\nexcept SystemExit: pass\n{tail}'],
                          capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {*done.stdout.splitlines()[-1].split()[1:]} <= {*may}, done.stdout[-300:]


def test_ruff():
    "Unused and unknown names, long lines, semicolons: pyproject.toml says where, and what else is looked at."
    done = subprocess.run([sys.executable, '-m', 'ruff', 'check', '--no-cache', '--output-format=concise'], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def body(module:str) -> list[ast.stmt]: return ast.parse((ROOT/f"{module.replace('.', '/')}.py").read_text()).body


def outside(n:ast.stmt) -> list[str]:
    "What a statement adds to classes from outside: `def f(self)`, `setattr(Class, …)`, `Class.f = …`."
    if isinstance(n, ast.ClassDef): return []
    if isinstance(n, ast.FunctionDef): return [f'def {n.name}(self)' for a in n.args.args[:1] if a.arg == 'self']
    calls = [c for c in ast.walk(n) if isinstance(c, ast.Call) and ast.unparse(c.func) == 'setattr']
    stored = [a for a in ast.walk(n) if isinstance(a, ast.Attribute) and isinstance(a.ctx, ast.Store)]
    return [ast.unparse(part) for part in (*calls, *stored)]


def test_classes_are_whole():
    off = [f'{module}: {what}' for module in graph() for n in body(module) for what in outside(n)]
    assert not off, '\n'.join(off)


LAYERS = [  # a module imports modules above it in this list, or beside it; frameworks and techniques none beside them
    ['lookup'], ['recipes'], ['provenance'], ['files', 'data', 'views'], ['lockstep'], ['encoders'],
    ['cost', 'objectives', 'tokens', 'matching', 'masks', 'tiles'], ['evaluate', 'travel', 'recompute', 'compiled'],
    ['gates'], ['maps', 'slim'],
    ['frameworks.*', 'techniques.*'], ['train'], ['probes.*'], ['building'], ['records'], ['weights'], ['runs'],
    ['takeaway'], ['show'], ['sweep', 'tables', 'tasks'], ['evidence', 'forecast'], ['pictures', 'token_pictures'],
    ['cli']]


def layer(module:str) -> int:
    "The place of a module in LAYERS; -1 if it has none."
    name = module.removeprefix('effssl.')
    return next((i for i, patterns in enumerate(LAYERS) if any(fnmatch(name, p) for p in patterns)), -1)


def test_imports_point_one_way():
    "At the top of a module and inside functions."
    nowhere = [m for m in graph() if layer(m) < 0]
    assert not nowhere, f'{nowhere}: give them a place in LAYERS'
    alone = layer('effssl.techniques.any')
    wrong = [f'{m} imports {other}' for m, found in graph().items() for other in sorted(found)
             if layer(other) > layer(m) or layer(other) == layer(m) == alone]
    assert not wrong, '\n'.join(wrong)


def test_imports_go_in_no_circle(): TopologicalSorter(graph()).prepare()  # raises CycleError with the circle


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_cells_are_short(name):
    "At most 30 lines, 45 where a class is whole in its cell; blank ones do not count, nor do parameters."
    code = [c for c in cells(name) if c['cell_type'] == 'code' and c['metadata'].get('tags') != ['parameters']]
    off = []
    for text in (''.join(c['source']) for c in code):
        lines = [l for l in text.splitlines() if l.strip()]
        if len(lines) > (45 if re.search('^class ', text, re.M) else 30):
            off.append(f'{len(lines)} lines: {" / ".join(l for l in lines if not l.startswith("#|"))[:90]}')
    assert not off, '\n'.join(off)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_a_cell_is_exported_in_one_way(name):
    "nbdev takes a cell's first word on it: what a second one says would be public, or hidden, by accident."
    words = {c['id']: re.findall(r'^#\| (export\w*)', ''.join(c['source']), re.M) for c in cells(name)}
    assert not [i for i, found in words.items() if len(found) > 1]


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook_style(name):
    for c in cells(name):
        text = ''.join(c['source'])
        if 'bar' in c.get('metadata', {}).get('tags', []):
            assert not c['outputs'], f'{name}: a progress bar or widget is stored'
        for o in c.get('outputs', []):
            assert o['output_type'] != 'error', f'{name}: an error is stored in {text[:50]!r}'
            for kind, data in o.get('data', {}).items():
                assert len(''.join(data)) <= 134_000, f'{name}: {kind} over 100 kB in {text[:50]!r}'
            assert len(''.join(o.get('text', ''))) < 10_000
            assert 'widget' not in json.dumps(o.get('data', {})), f'{name}: widget state is stored'
    assert name == 'index.ipynb' or ''.join(cells(name)[0]['source']).startswith('# ')
    assert set(notebook(name)['metadata']) == {'kernelspec'}, f'{name}: widget state or the like is stored with it'


@pytest.mark.parametrize('name', [n for n in NOTEBOOKS if n.startswith('experiments/')])
def test_parameters_are_tagged(name):
    tags = [c.get('metadata', {}).get('tags') for c in cells(name)]
    assert tags.count(['parameters']) == 1


def test_every_export_is_documented():
    "Functions and classes of the package have a docstring, but hooks of Lightning and what begins with _."
    for path in (ROOT/'effssl').rglob('*.py'):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith(('_', 'on_')): continue
            assert ast.get_docstring(node), f'{path.name}: {node.name} has no docstring'


def test_links_lead_somewhere():
    "To files of the repository, from README, CONTRIBUTING and notebooks; code has none."
    texts = {f: re.sub(r'```.*?```', '', (ROOT/f).read_text(), flags=re.S) for f in TRACKED if f.endswith('.md')}
    for n in NOTEBOOKS:
        texts[f'nbs/{n}'] = '\n'.join(''.join(c['source']) for c in cells(n) if c['cell_type'] == 'markdown')
    dead = [(f, link) for f, text in texts.items() for link in re.findall(r'\]\(([^)#\s]+)', text)
            if '://' not in link and not (ROOT/f).parent.joinpath(link).exists()]
    assert not dead, dead


def test_figures_are_what_notebooks_show():
    "Each file is the picture that a cell with `#| figure NAME` stores, and that its page of the site shows."
    given = {}
    for path in (ROOT/'nbs'/n for n in NOTEBOOKS):
        if '#| figure ' in path.read_text(): given |= figures_of(nbformat.read(path, as_version=4), path.stem)
    there = {p.name: p.read_bytes() for p in (ROOT/'figures').iterdir()}
    assert given and there.keys() == given.keys(), 'python3 dev.py notebooks; delete what no cell draws'
    stale = [name for name in given if there[name] != given[name]]
    assert not stale, f'{stale}: python3 dev.py notebooks --only …'


def test_no_path_of_a_machine_and_no_big_file():
    for f in TRACKED:
        if not (ROOT/f).exists(): continue
        assert (ROOT/f).stat().st_size <= 600_000, f
        if f.startswith('figures/'): assert (ROOT/f).stat().st_size <= 100_000, f
        if not f.endswith(('.png', '.ci/run')) and f != 'tests/test_house.py':
            found = re.search(r'(?<![\w.~])/(home|root|tmp|work)/\w+|\.\./shared', (ROOT/f).read_text())
            assert not found, f'{f}: {found.group()}'
