"The site, straight from nbs/: `python3 dev.py docs` builds it into _docs/html. A new notebook appears by itself; nothing here names one."
import json, re, sys
from configparser import ConfigParser
from functools import lru_cache
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import desc, desc_parameter, desc_sig_name, toctree
from sphinx.domains import IndexEntry
from sphinx.domains.python import PythonDomain, PythonModuleIndex
from sphinx.util.nodes import make_refnode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
import api  # noqa: E402

ini = ConfigParser(delimiters=['='], interpolation=None)
ini.read(ROOT/'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']

project, author, release, language = cfg['title'], cfg['author'], cfg['version'], 'en'
copyright = cfg['copyright']
extensions = ['myst_nb', 'sphinx.ext.mathjax', 'sphinx-mathjax-offline', 'sphinx_copybutton']
exclude_patterns = ['**/.ipynb_checkpoints', '**/runs', '**/*.part.ipynb', '**/*.failed.ipynb']
nb_execution_mode = 'off'
nb_merge_streams = True
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_dmath_double_inline = True
myst_heading_anchors = 4
add_module_names = False
highlight_language = 'text'  # of blocks that name no language
smartquotes = False  # quotes in comments are code
toc_object_entries_show_parents = 'hide'
suppress_warnings = ['misc.highlighting_failure']  # code in prose may say …

html_theme = 'furo'
html_title = cfg['title']
html_static_path = ['static']
html_css_files = ['site.css']
html_search_scorer = str(HERE/'scorer.js')
nb_render_markdown_format = 'gfm'  # of outputs: tables
nb_code_prompt_show = nb_code_prompt_hide = 'The cell that made this'
html_use_index = html_copy_source = html_show_sphinx = False
html_theme_options = dict(
    source_repository=cfg['git_url'], source_branch=cfg['branch'], source_directory='nbs/',
    light_css_variables={'color-brand-primary': '#0072B2', 'color-brand-content': '#0072B2', 'color-api-name': '#0072B2'},
    dark_css_variables={'color-brand-primary': '#56B4E9', 'color-brand-content': '#56B4E9', 'color-api-name': '#56B4E9'})

FIRST = ['tutorials', 'experiments', 'tables', 'techniques', 'frameworks']  # what comes first in the navigation, of folders; modules last
CAPTIONS = {'': 'The library', 'tutorials': 'Start', 'tables': 'Results'}  # of other folders: their names
BROWSER = 'tables/95_browse'  # the page of records.js
KINDS = {'Classes': 'class', 'Functions': 'function'}


def cells(path): return json.loads(Path(path).read_text(encoding='utf-8'))['cells'] if str(path).endswith('.ipynb') else []


def prose(markdown, id): return dict(cell_type='markdown', metadata={}, source=markdown, id=id)


def shown(cell, folder, pages):
    "What the site shows of a notebook's cell: a list of no cell or one."
    module = api.module([cell])
    if module: return [prose(api.fenced('py:module', f"{cfg['lib_name']}.{module}", ''), cell['id'])]
    if api.hidden(cell): return []
    if cell['cell_type'] == 'markdown': return [{**cell, 'source': to_repository(''.join(cell['source']), folder, pages)}]
    if not api.exported(cell): return [{**cell, 'source': api.code(cell), 'outputs': [*map(to_pages, cell['outputs'])]}]
    markdown = api.documented(cell)
    return [prose(markdown, cell['id'])] if markdown else []


def to_pages(output):
    "Links to notebooks in an output's Markdown, which Sphinx leaves as they are, lead to their pages."
    data = output.get('data', {})
    if 'text/markdown' not in data: return output
    markdown = re.sub(r'(\]\([^()\s:]+)\.ipynb', r'\1.html', ''.join(data['text/markdown']))
    return {**output, 'data': {**data, 'text/markdown': markdown}}


def to_repository(markdown, folder, pages):
    "Links to files and folders that are no page of the site lead to the repository; pictures stay."
    def change(m):
        path = (folder/m[2]).resolve()
        if not path.exists() or not path.is_relative_to(ROOT) or path in pages: return m[0]
        return f"{m[1]}({cfg['git_url']}/{'tree' if path.is_dir() else 'blob'}/{cfg['branch']}/{path.relative_to(ROOT).as_posix()}{m[3] or ''})"
    return re.sub(r'((?<!!)\[[^\]]*\])\(([^()\s#:]+)(#[^()\s]*)?\)', change, markdown)


def contents(docnames):
    "The navigation: overview, tutorials by number, then the other folders, the library, and its API."
    folders = {'tutorials': ['Overview <self>']}
    for d in sorted(docnames - {'index'}): folders.setdefault(d.rpartition('/')[0], []).append(d)
    order = sorted(folders, key=lambda f: (FIRST.index(f) if f in FIRST else len(FIRST), f == '', f))
    trees = [(CAPTIONS.get(f, f.replace('/', ': ').capitalize()), folders[f]) for f in order] + [('Reference', ['API <modindex>'])]
    return '\n\n'.join(api.fenced('toctree', '', '\n'.join(docs), {'hidden': '', 'caption': caption}) for caption, docs in trees)


def read(app, docname, source):
    "A notebook on its way into Sphinx."
    path, pages = Path(app.env.doc2path(docname)), {Path(app.env.doc2path(d)).resolve() for d in app.env.found_docs}
    if path.suffix != '.ipynb': return
    nb = json.loads(source[0])
    nb['metadata']['language_info'] = dict(name='python', pygments_lexer='ipython3')
    nb['cells'] = [s for c in nb['cells'] for s in shown(c, path.parent, pages)]
    if docname == app.config.root_doc: nb['cells'].append(prose(contents(app.env.found_docs), 'contents'))
    source[0] = json.dumps(nb)


@lru_cache
def known(env):
    "When all is read: page -> its module, and name as in its module -> full names."
    objects, short = env.domains.python_domain.objects, {}
    modules = {name: o.docname for name, o in objects.items() if o.objtype == 'module'}
    for name in objects:
        for module in modules:
            if name.startswith(f'{module}.'): short.setdefault(name[len(module) + 1:], []).append(name)
    return {page: module for module, page in modules.items()}, short


def lookup(env, word, docname):
    "The full name that a word means on a page: the page's own, or the only one in the package; None if it is no name or more than one."
    objects, (module_of, short) = env.domains.python_domain.objects, known(env)
    if word in objects: return word
    own = f"{module_of.get(docname, '')}.{word}"
    if own in objects: return own
    found = short.get(word, [])
    return found[0] if len(found) == 1 else None


def link(app, docname, word, content):
    "A reference to a name or a notebook, or None."
    name = lookup(app.env, word.removesuffix('()'), docname)
    if name:
        o = app.env.domains.python_domain.objects[name]
        return make_refnode(app.builder, docname, o.docname, o.node_id, content, name)
    page = next((d for d in app.env.found_docs if d.rpartition('/')[2] == word), None)
    return make_refnode(app.builder, docname, page, '', content) if page else None


def link_words(app, doctree, docname):
    "Back-ticked names become links, except a function's own parameters, and whatever stands in titles and links."
    for n in list(doctree.findall(nodes.literal)):
        above = [n.parent]
        while above[-1].parent is not None: above.append(above[-1].parent)
        names = [p.next_node(desc_sig_name) for a in above if isinstance(a, desc) for p in a.findall(desc_parameter)]
        own = {name.astext() for name in names if name}
        if n.astext() in own or any(isinstance(a, (nodes.title, nodes.reference)) for a in above): continue
        ref = link(app, docname, n.astext(), n.deepcopy())
        if ref: n.replace_self(ref)


def missing(app, env, node, content):
    "Types in signatures that the page imports from another module of the package."
    return link(app, node['refdoc'], node['reftarget'], content) if node.get('refdomain') == 'py' else None


@lru_cache
def titles(env):
    "Tables of contents without what stands below the titles of pages."
    found = {}
    for page, whole in env.tocs.items():
        found[page] = whole
        if next(whole.findall(toctree), None): continue
        found[page] = whole.deepcopy()
        for title in found[page]: del title[1:]
    return found


def light(app, pagename, templatename, context, doctree):
    "The navigation shows titles alone: it need not copy all else for every page, which took a third of the time."
    if 'toctree' not in context: return
    make = context['toctree']
    def navigation(**kw):
        whole, app.env.tocs = app.env.tocs, titles(app.env)
        try: return make(**kw)
        finally: app.env.tocs = whole
    context['toctree'] = navigation


def summary(entry): return (entry.doc or entry.options.get('value', '')).partition('\n')[0].replace('`', '')


def purpose(found):
    "The line that a notebook's title is followed by."
    lines = [line for c in found if c['cell_type'] == 'markdown' for line in ''.join(c['source']).splitlines()]
    quote = next((line[1:].strip() for line in lines if line.startswith('>')), '')
    return re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', quote).replace('`', '').replace('*', '')


def documented_modules():
    "Module -> (page of its notebook, cells), in the order of pages."
    pages = sorted(p.relative_to(ROOT/'nbs').with_suffix('') for p in (ROOT/'nbs').rglob('*.ipynb') if p.parent.name[0] != '.')
    read = {page.as_posix(): cells(ROOT/'nbs'/f'{page}.ipynb') for page in pages}
    return {f"{cfg['lib_name']}.{api.module(found)}": (page, found) for page, found in read.items() if api.module(found)}


class Modules(PythonModuleIndex):
    "Every module, one line each, by folder."
    localname, shortname = 'API', 'API'

    def generate(self, docnames=None):
        groups = {}
        for module, (page, found) in documented_modules().items():
            entry = IndexEntry(module, 0, f'py-{module}', '', '', '', purpose(found))
            groups.setdefault(page.rpartition('/')[0].capitalize() or 'Library', []).append(entry)
        return list(groups.items()), False


def names_of(module, page, found):
    "The index of one module: its notebook, where all else stands, and its public classes and functions, one line each."
    class Names(PythonModuleIndex):
        name = localname = shortname = module

        def generate(self, docnames=None):
            shown = [c for c in found if api.exported(c) and not api.hidden(c) and not api.private(c)]
            entries = [e for c in shown for e in api.entries(api.code(c))]
            line = lambda e: IndexEntry(e.name, 0, page, f'{module}.{e.name}', api.arguments(e), '', summary(e))
            kinds = {title: [line(e) for e in entries if e.kind == kind] for title, kind in KINDS.items()}
            notebook = IndexEntry(page.rpartition('/')[2], 0, page, '', '', '', purpose(found))
            return [('Notebook', [notebook]), *((title, lines) for title, lines in kinds.items() if lines)], False
    return Names


def gather(app):
    "The records as they are, in one script: a page that was opened from a file cannot fetch any."
    found = {p.relative_to(ROOT).as_posix(): json.loads(p.read_text()) for p in sorted((ROOT/'results').rglob('*.json'))}
    path = Path(app.outdir)/'_static'/'records.js'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'const RECORDS = {json.dumps(found, separators=(",", ":"))}\n', encoding='utf-8')


def scripts(app, pagename, template, context, doctree):
    "What the page of all records needs beside Sphinx's."
    for name in ('records.js', 'browse.js') if pagename == BROWSER else (): app.add_js_file(name, loading_method='defer')


def setup(app):
    PythonDomain.indices = [Modules, *(names_of(m, *found) for m, found in documented_modules().items())]
    app.connect('builder-inited', gather)
    app.connect('html-page-context', scripts)
    app.connect('source-read', read)
    app.connect('doctree-resolved', link_words)
    app.connect('missing-reference', missing)
    app.connect('html-page-context', light, priority=400)  # before the theme's
