"Exported cells as API entries in Markdown, from their source alone: nothing is imported, so no entry hides behind a package or a GPU."
import ast, io, inspect, re, tokenize
from dataclasses import dataclass, field

DIRECTIVE = re.compile(r'^\s*#\s*\|\s*(.*?)\s*$', re.M)


@dataclass
class Entry:
    "One public name of a cell, or one member of a class."
    kind: str # function, class, data, method, property, …
    name: str
    signature: str = ''
    doc: str = ''
    tables: list = field(default_factory=list) # (heading, rows of name, type, default, meaning)
    members: list = field(default_factory=list) # entries of a class
    options: dict = field(default_factory=dict) # of the Sphinx directive


def directives(cell): return DIRECTIVE.findall(''.join(cell['source'])) if cell['cell_type'] == 'code' else []


def hidden(cell): return bool({'hide', 'include: false', 'remove-cell'} & {*directives(cell), *cell['metadata'].get('tags', [])})


def export(cell): return next((d.split()[0] for d in directives(cell) if d.startswith('export')), None)


def exported(cell): return export(cell) in ('export', 'exports', 'exporti')


def private(cell): return export(cell) == 'exporti'


def module(cells):
    "The module that these cells export to, without the package's name; None if they export nothing."
    return next((d.split()[1] for c in cells for d in directives(c) if d.startswith('default_exp ')), None)


def code(cell): return DIRECTIVE.sub('', ''.join(cell['source'])).strip('\n')


def public(name): return not name.startswith('_')


def notes(source):
    "Line number -> the comment that ends it."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip('#').strip() for t in tokens if t.type == tokenize.COMMENT}


def text(node):
    "Source of a type or a default; quotes around a type are dropped, a field's factory is called."
    if node is None: return ''
    factory = next((k.value for k in getattr(node, 'keywords', []) if k.arg == 'default_factory'), None)
    return f'{ast.unparse(factory)}()' if factory else ast.unparse(node)


def annotation(node): return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else text(node)


def parameters(fn, comments):
    "Rows of a function's table; as in nbdev, a line's comment is its last parameter's, or the return's."
    a, rows, lines = fn.args, [], {}
    named = a.posonlyargs + a.args
    defaults = [None]*(len(named) - len(a.defaults)) + a.defaults
    pairs = [*zip(named, defaults), (a.vararg, None), *zip(a.kwonlyargs, a.kw_defaults), (a.kwarg, None)]
    for arg, default in pairs:
        if arg is None or arg.arg in ('self', 'cls'): continue
        stars = '*' if arg is a.vararg else '**' if arg is a.kwarg else ''
        lines[(default or arg).end_lineno] = len(rows)
        rows.append([stars + arg.arg, annotation(arg.annotation), text(default), ''])
    if fn.returns:
        lines[fn.returns.end_lineno] = len(rows)
        rows.append(['returns', annotation(fn.returns), '', ''])
    for line, i in lines.items():
        if line < fn.body[0].lineno: rows[i][3] = comments.get(line, '')
    if fn.returns and not rows[-1][3]: rows.pop()  # the signature says it
    return [('parameter', rows)] if any(r[3] for r in rows) else []


def signature(fn, method=False):
    args = ast.parse(ast.unparse(fn.args).join(('def f(', '): 0'))).body[0].args
    if method: args.args = args.args[1:]
    for a in [*args.posonlyargs, *args.args, *args.kwonlyargs]:
        if a.annotation: a.annotation = ast.parse(annotation(a.annotation), mode='eval').body
    return f'({ast.unparse(args)})' + (f' -> {annotation(fn.returns)}' if fn.returns else '')


def function(fn, comments, method=False):
    "A function or method."
    marks = {ast.unparse(d) for d in fn.decorator_list}
    kind = 'property' if 'property' in marks else 'method' if method else 'function'
    options = {m: '' for m in ('classmethod', 'staticmethod') if m in marks}
    doc = ast.get_docstring(fn) or ''
    if kind == 'property': return Entry(kind, fn.name, doc=doc, options={'type': annotation(fn.returns)} if fn.returns else {})
    return Entry(kind, fn.name, signature(fn, method and 'staticmethod' not in marks), doc, parameters(fn, comments), options=options)


def fields(cls, comments):
    "Rows of a class's own attributes: name, type, default, meaning."
    for n in cls.body:
        if not isinstance(n, (ast.AnnAssign, ast.Assign)): continue
        names = ast.unparse(n.target if isinstance(n, ast.AnnAssign) else n.targets[0]).strip('()')
        if public(names): yield [names, annotation(getattr(n, 'annotation', None)), text(n.value), comments.get(n.end_lineno, '')]


def klass(cls, comments):
    "A class: parameters of its constructor, its attributes where they are explained, and its documented methods."
    entry = Entry('class', cls.name, doc=ast.get_docstring(cls) or '')
    methods = [n for n in cls.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    rows = list(fields(cls, comments))
    if any('dataclass' in ast.unparse(d) for d in cls.decorator_list):
        entry.signature = '(' + ', '.join(n + f'={d}'*bool(d) for n, _, d, _ in rows) + ')'  # types are in the table
        entry.tables = [('parameter', rows)]
    else:
        for init in methods:
            if init.name == '__init__': entry.signature, entry.tables = signature(init, True), parameters(init, comments)
        explained = [r for r in rows if r[3]]
        if explained: entry.tables = [*entry.tables, ('attribute', explained)]
    if cls.bases: entry.doc += '\n\nBases: ' + ', '.join(f'`{ast.unparse(b)}`' for b in cls.bases)
    told = [m for m in methods if ast.get_docstring(m) and m.name != '__init__' and (public(m.name) or m.name.endswith('__'))]
    entry.members = [function(m, comments, True) for m in told]
    return entry


def entries(source):
    "The public names that a cell defines, in order."
    comments, found = notes(source), []
    for n in ast.parse(source).body:
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)): found.append(function(n, comments))
        elif isinstance(n, ast.ClassDef): found.append(klass(n, comments))
        elif isinstance(n, (ast.Assign, ast.AnnAssign)):
            targets = n.targets if isinstance(n, ast.Assign) else [n.target]
            names = [t.id for target in targets for t in getattr(target, 'elts', [target]) if isinstance(t, ast.Name)]
            value = text(n.value)
            options = {'value': value} if len(names) == 1 and len(value) <= 100 else {}
            found += [Entry('data', name, doc=comments.get(n.end_lineno, ''), options=options) for name in names]
    return [e for e in found if public(e.name)]


def arguments(e, longest=72):
    "The names of an entry's arguments with their defaults, cut where they are many."
    args = ast.parse(f'def f{e.signature or "()"}: 0').body[0].args
    for a in [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]:
        if a: a.annotation = None
    text = ast.unparse(args)
    return text if len(text) <= longest else text[:longest].rpartition(',')[0] + ', …'


def escape(prose):
    "Docstrings and comments are prose with back-ticked code: nothing else in them is Markdown."
    return ''.join(p if i % 2 else re.sub(r'([\\*_\[\]<>$|{}])', r'\\\1', p) for i, p in enumerate(re.split(r'(`[^`]*`)', prose)))


def cell(value):
    "Code in a table's cell."
    return '`` '*bool(value) + value.replace('|', r'\|') + ' ``'*bool(value)


def table(heading, rows):
    "A table without its empty columns."
    rows = [['returns' if n == 'returns' else cell(n), cell(t), cell(d), escape(m)] for n, t, d, m in rows]
    columns = [c for c in zip([heading, 'type', 'default', 'meaning'], ['---']*4, *rows) if any(c[2:])]
    return '\n'.join(f'| {" | ".join(row)} |' for row in zip(*columns))


def fenced(kind, argument, body, options=None, ticks=4):
    head = [f'{"`"*ticks}{{{kind}}} {argument}', *(f':{k}: {v}'.rstrip() for k, v in (options or {}).items())]
    return '\n'.join([*head, '', body, '`'*ticks])


def markdown(e, ticks=5):
    "An entry as a directive of Sphinx's Python domain."
    parts = [escape(inspect.cleandoc(e.doc)), *(table(*t) for t in e.tables), *(markdown(m, ticks - 1) for m in e.members)]
    return fenced(f'py:{e.kind}', e.name + e.signature, '\n\n'.join(p for p in parts if p), e.options, ticks)


def source(text):
    "The code, folded away."
    raw = lambda html: fenced('raw', 'html', html)
    return '\n\n'.join([raw('<details class="source"><summary>Source</summary>'), f'````python\n{text}\n````', raw('</details>')])


def documented(c):
    "An exported cell as one of Markdown: entries, then source; None for imports alone. Without a public name the code is left in view."
    body = ast.parse(code(c)).body
    if all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in body): return None
    found = entries(code(c))
    if not found: return f'````python\n{code(c)}\n````'
    return '\n\n'.join([*map(markdown, found), source(code(c))])
