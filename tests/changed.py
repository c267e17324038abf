"What a change can touch: notebooks and tests, through the modules that they import and the names that they call them by."
import ast, json, re, subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALWAYS = 'test_house.py'  # of the repository as a whole, and quick


def git(*args) -> list[str]: return subprocess.run(['git', *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split('\n')[:-1]


def changed_files(rev:str) -> set[str]:
    "Tracked files that differ from a commit, and files that git does not know yet. Raises CalledProcessError for a commit that is not there."
    base = git('merge-base', rev, 'HEAD')[0]
    return {*git('diff', '--name-only', base), *git('ls-files', '--others', '--exclude-standard')}


def tree_of(text:str) -> ast.Module:
    "Code without IPython's magics."
    return ast.parse('\n'.join('' if l.lstrip().startswith(('%', '!')) else l for l in text.splitlines()))


def code(path) -> str:
    "The code of a notebook or module."
    text = (ROOT/path).read_text()
    return text if not path.endswith('.ipynb') else '\n'.join(''.join(c['source']) for c in json.loads(text)['cells'] if c['cell_type'] == 'code')


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
    body = tree_of(code(module.replace('.', '/') + '.py')).body
    classes = [n.name.lower() for n in body if isinstance(n, ast.ClassDef) and not any(ast.unparse(b) == 'nn.Module' for b in n.bases)]
    return {module.rpartition('.')[2], *classes}


def mentions(text:str, names:set[str]) -> bool:
    "Whether text has one of the names as a word, perhaps with a number behind it."
    return any(re.search(rf'(?<![a-z0-9]){re.escape(n)}(?![a-z])', text.lower()) for n in names)


class Reach:
    "What a set of changed files can touch."
    def __init__(self, files:set[str]):
        self.files = files
        own = {f[:-3].replace('/', '.') for f in files if f.startswith('effssl/') and f.endswith('.py')}
        self.own = own & set(graph())
        self.modules, self.names = above(self.own), {n for m in self.own for n in by_name(m)}
        others = [Path(f) for f in files if not f.startswith('effssl/') and not f.endswith('.ipynb') and not Path(f).name.startswith('test_')]
        self.data = {n.lower() for f in others for n in (f.name, f.stem, f.parent.name)} - {'', 'nbs', 'tests', 'docs', 'workflows', '.ci'}
        sorts = {m.split('.')[1] for m in self.own}  # of techniques alone, or frameworks: an item that names others of the sort is not touched
        self.siblings = {n for m in graph() if m.split('.')[1] in sorts for n in by_name(m)} if sorts <= {'frameworks', 'techniques'} and not self.data else set()
    def notebook(self, path:str) -> bool:
        return path in self.files or bool(imports(tree_of(text := code(path))) & self.modules) or mentions(text, self.names | self.data)
    def test(self, path:str, function:str, id:str) -> bool:
        if path in self.files or Path(path).name == ALWAYS: return True
        if any(mentions(id, {n}) for n in self.siblings): return mentions(id, self.names)
        tree, functions, text = part(path, function)
        return bool(imports(tree) & self.modules) or mentions(functions, self.names) or mentions(text, self.data)


@lru_cache
def part(path:str, function:str) -> tuple[ast.Module, str, str]:
    "A test function with all of its file that it uses: imports, helpers, fixtures, constants; the text of the functions, and of all."
    tree, source = tree_of(code(path)), code(path)
    defined = {}
    for n in tree.body:
        names = [n.name] if hasattr(n, 'name') else [t.id for a in getattr(n, 'targets', []) for t in ast.walk(a) if isinstance(t, ast.Name)]
        if isinstance(n, (ast.Import, ast.ImportFrom)): names = [a.asname or a.name for a in n.names]
        for name in names: defined[name] = n
    used, todo = [], [defined[function]]
    while todo:
        if (n := todo.pop()) in used: continue
        used.append(n)
        words = {w.id for w in ast.walk(n) if isinstance(w, ast.Name)} | {a.arg for a in ast.walk(n) if isinstance(a, ast.arg)}
        todo += [defined[w] for w in words if w in defined]
    text = lambda nodes: '\n'.join(ast.get_source_segment(source, n) for n in nodes)
    return ast.Module(used, []), text(n for n in used if isinstance(n, (ast.FunctionDef, ast.ClassDef))), text(used)


def touched(items, rev:str) -> list:
    "The tests among these that the working tree's difference from a commit can touch; all if it changes how tests are run."
    files = changed_files(rev)
    if files & {'tests/conftest.py', 'tests/kernels.py', 'tests/changed.py', 'settings.ini', 'pyproject.toml'}: return items
    reach, found = Reach(files), []
    for item in items:
        path = f'tests/{item.path.name}'
        if path == 'tests/test_notebooks.py' and item.originalname == 'test_notebook': hit = path in files or reach.notebook(f"nbs/{item.callspec.params['name']}")
        elif path == 'tests/test_site.py': hit = path in files or any(f.startswith(('docs/', 'nbs/')) for f in files)
        else: hit = reach.test(path, item.originalname, getattr(getattr(item, 'callspec', None), 'id', ''))
        if hit: found.append(item)
    return found if files else []
