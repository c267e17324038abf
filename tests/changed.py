"What a change can touch: notebooks and tests, by the modules they import and the names they call. Needs no package."
import ast, json, re, subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALWAYS = 'test_house.py'  # of the repository as a whole, and quick


def git(*args) -> list[str]:
    return subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\n')[:-1]


def changed_files(rev:str) -> set[str]:
    "Files that are new, or differ from where HEAD and a commit part. Raises CalledProcessError for an unknown commit."
    base = git('merge-base', rev, 'HEAD')[0]
    return {*git('diff', '--name-only', base), *git('ls-files', '--others', '--exclude-standard')}


def tree_of(text:str) -> ast.Module:
    "Code without IPython's magics."
    return ast.parse('\n'.join('' if l.lstrip().startswith(('%', '!')) else l for l in text.splitlines()))


def code(path) -> str:
    "The code of a notebook or module."
    text = (ROOT/path).read_text()
    if not path.endswith('.ipynb'): return text
    return '\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'code')


def imports(tree, package:str='effssl') -> set[str]:
    "Modules of the library, as dotted names, that code imports anywhere; relative ones from inside `package`."
    found = set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Import): found |= {a.name for a in n.names}
        if isinstance(n, ast.ImportFrom):
            above = package.split('.')[:len(package.split('.')) - n.level + 1] if n.level else []
            base = '.'.join([*above, *([n.module] if n.module else [])])
            found |= {base, *(f'{base}.{a.name}' for a in n.names)}
    return {f for f in found if f.startswith('effssl')}


@lru_cache
def graph() -> dict[str, set[str]]:
    "Module of the library -> modules that it imports."
    paths = [p.relative_to(ROOT) for p in (ROOT/'effssl').rglob('*.py') if p.name not in ('__init__.py', '_modidx.py')]
    known = {'.'.join(p.with_suffix('').parts): p for p in paths}
    return {m: imports(tree_of(code(str(p))), m.rpartition('.')[0]) & set(known) for m, p in known.items()}


def above(modules:set[str]) -> set[str]:
    "These modules and all that import them, directly or through others."
    while more := {m for m, needs in graph().items() if needs & modules} - modules: modules = modules | more
    return modules


def by_name(module:str) -> set[str]:
    "What recipes call the classes of a framework's or technique's module; empty for other modules."
    if not module.startswith(('effssl.frameworks.', 'effssl.techniques.')): return set()
    classes = [n for n in tree_of(code(module.replace('.', '/') + '.py')).body if isinstance(n, ast.ClassDef)]
    named = {c.name.lower() for c in classes if 'nn.Module' not in map(ast.unparse, c.bases)}
    return {module.rpartition('.')[2], *named}


def asked(tree) -> set[str]:
    "Packages of which a test takes every class: 'effssl.techniques.' where it calls names('technique')."
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == 'names']
    return {f'effssl.{c.args[0].value}s.' for c in calls if isinstance(c.args[0], ast.Constant)}


def mentions(text:str, names:set[str]) -> bool:
    "Whether text has one of the names as a word, perhaps with a number behind it."
    return any(re.search(rf'(?<![a-z0-9]){re.escape(n)}(?![a-z])', text.lower()) for n in names)


def data_names(files:set[str]) -> set[str]:
    "Names by which code may read files that are neither modules, notebooks nor tests, and those of their folders."
    others = [Path(f) for f in files if not f.startswith('effssl/') and not f.endswith('.ipynb')]
    found = {n.lower() for f in others if not f.name.startswith('test_') for n in (f.name, f.stem, f.parent.name)}
    return found - {'', 'nbs', 'tests', 'docs', 'workflows', '.ci'}


class Reach:
    "What a set of changed files can touch."
    def __init__(self, files:set[str]):
        self.files = files
        own = {f[:-3].replace('/', '.') for f in files if f.startswith('effssl/') and f.endswith('.py')}
        self.own = own & set(graph())
        self.modules, self.names = above(self.own), {n for m in self.own for n in by_name(m)}
        self.data = data_names(files)
        sorts = {m.split('.')[1] for m in self.own}
        alone = sorts <= {'frameworks', 'techniques'} and not self.data
        # an item that names others of the sort is not touched
        self.siblings = {n for m in graph() if m.split('.')[1] in sorts for n in by_name(m)} if alone else set()
    def notebook(self, path:str) -> bool:
        if path in self.files: return True
        text = code(path)
        return bool(imports(tree_of(text)) & self.modules) or mentions(text, self.names | self.data)
    def test(self, path:str, function:str, id:str) -> bool:
        if path in self.files or Path(path).name == ALWAYS: return True
        if any(mentions(id, {n}) for n in self.siblings): return mentions(id, self.names)
        tree, functions, text = part(path, function)
        if imports(tree) & self.modules or any(m.startswith(tuple(asked(tree))) for m in self.own): return True
        return mentions(functions, self.names) or mentions(text, self.data)


def names_of(n:ast.stmt) -> list[str]:
    "What a statement of a module defines."
    if isinstance(n, ast.Import | ast.ImportFrom): return [a.asname or a.name for a in n.names]
    if hasattr(n, 'name'): return [n.name]
    return [t.id for a in getattr(n, 'targets', []) for t in ast.walk(a) if isinstance(t, ast.Name)]


@lru_cache
def part(path:str, function:str) -> tuple[ast.Module, str, str]:
    "A test function with all that it uses of its file; the text of the functions among that, and of all."
    source = code(path)
    defined = {name: n for n in tree_of(source).body for name in names_of(n)}
    used, todo = [], [defined[function]]
    while todo:
        if (n := todo.pop()) in used: continue
        used.append(n)
        names = {w.id for w in ast.walk(n) if isinstance(w, ast.Name)}
        fixtures = {a.arg for a in ast.walk(n) if isinstance(a, ast.arg)}
        todo += [defined[w] for w in names | fixtures if w in defined]
    text = lambda nodes: '\n'.join(ast.get_source_segment(source, n) for n in nodes)
    return ast.Module(used, []), text(n for n in used if isinstance(n, (ast.FunctionDef, ast.ClassDef))), text(used)


def touched(items, rev:str) -> list:
    "The tests among these that the difference from a commit can touch; all if it changes how tests are run."
    files = changed_files(rev)
    how = {f'tests/{f}.py' for f in ('conftest', 'kernels', 'forks', 'changed')}
    if files & {*how, 'settings.ini', 'pyproject.toml'}:
        return items
    reach, found = Reach(files), []
    for item in items:
        path = f'tests/{item.path.name}'
        if path == 'tests/test_notebooks.py' and item.originalname == 'test_notebook':
            hit = path in files or reach.notebook(f"nbs/{item.callspec.params['name']}")
        elif path == 'tests/test_site.py':
            hit = path in files or any(f.startswith(('docs/', 'nbs/', 'results/')) for f in files)
        else: hit = reach.test(path, item.originalname, getattr(getattr(item, 'callspec', None), 'id', ''))
        if hit: found.append(item)
    return found if files else []
