"The documentation site: built without a warning, whole without a network, and opened in a browser."
import ast, functools, http.server, json, re, shutil, subprocess, sys, threading
from urllib.parse import unquote, urldefrag, urljoin

import pytest
from bs4 import BeautifulSoup

from conftest import ROOT
from test_notebooks import NOTEBOOKS

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chromium-browser'))), None)
TOKEN = re.compile(r'<span class="[a-z][a-z0-9]{0,2}">([^<]*)</span>')  # of coloured code, two thirds of all elements


def build(root, out):
    "The site of a checkout, as `python3 dev.py docs` builds it."
    command = [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-c', root/'docs', '-d', out/'doctrees']
    done = subprocess.run([*command, root/'nbs', out/'html'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    paths = {p.relative_to(out/'html').as_posix(): p for p in (out/'html').rglob('*.html')}
    return {name: BeautifulSoup(TOKEN.sub(r'\1', p.read_text()), 'html.parser') for name, p in paths.items()}


@pytest.fixture(scope='module')
def folder(tmp_path_factory): return tmp_path_factory.mktemp('site')


@pytest.fixture(scope='module')
def pages(folder): return build(ROOT, folder)


def test_every_notebook_is_in_the_navigation(pages):
    wanted = {n.replace('.ipynb', '.html') for n in NOTEBOOKS if n != 'index.ipynb'} | {'#', 'py-modindex.html'}
    found = [a['href'] for a in pages['index.html'].select('.sidebar-tree a')]
    tutorials = sorted(w for w in wanted if w.startswith('tutorials/'))
    assert set(found) == wanted and found[:1 + len(tutorials)] == ['#', *tutorials] and found[-1] == 'py-modindex.html'


def test_nothing_is_fetched_from_elsewhere(pages, folder):
    for name, page in pages.items():
        for tag, key in (('script', 'src'), ('img', 'src'), ('iframe', 'src'), ('source', 'src'), ('link', 'href')):
            sources = [t.get(key, '') for t in page.find_all(tag) if 'canonical' not in t.get('rel', [])]
            found = [s for s in sources if re.match(r'(https?:)?//', s)]
            assert not found, f'{name} needs {found}'
    for css in (folder/'html').rglob('*.css'):
        found = re.search(r'''(@import\s+|url\(\s*)['"]?(https?:)?//''', css.read_text())
        assert not found, f'{css.name} fetches from elsewhere'


LINKS = dict(a='href', img='src', script='src', link='href')


def test_links_lead_somewhere(pages, folder):
    "A crawl: every link within the site has its file and its anchor, and every page is reached from the first."
    ids = {name: {t['id'] for t in page.find_all(id=True)} for name, page in pages.items()}
    leads = {}
    for name, page in pages.items():
        targets = {t.get(LINKS[t.name]) for t in page.find_all([*LINKS])} - {None, ''}
        inner = {t: urldefrag(unquote(urljoin(name, re.sub(r'\?[^#]*', '', t))))
                 for t in targets if not re.match(r'\w+:', t)}
        leads[name] = {path or name for path, _ in inner.values()}
        dead = [t for t, (path, anchor) in inner.items()
                if not (folder/'html'/(path or name)).is_file() or anchor and anchor not in ids[path or name]]
        assert not dead, f'{name}: {dead}'
    found, new = set(), {'index.html'}
    while new: found, new = found | new, set().union(*(leads.get(n, ()) for n in new)) - found - new
    assert not pages.keys() - found, 'no link leads here'


def public(path):
    "What a module exports, and what of it are functions and classes."
    body = ast.parse(path.read_text()).body
    assigned = [n for n in body if isinstance(n, ast.Assign)]
    names = next((ast.literal_eval(n.value) for n in assigned if n.targets[0].id == '__all__'), [])
    return names, [n.name for n in body if getattr(n, 'name', '') in names]


def test_every_public_name_has_an_entry(pages):
    anchors = {t['id'] for page in pages.values() for t in page.find_all(id=True)}
    listed = {a['href'].rpartition('/')[2] for a in pages['py-modindex.html'].select('.domainindex-table a')}
    modules = {'.'.join(p.relative_to(ROOT).with_suffix('').parts): p for p in (ROOT/'effssl').rglob('*.py')}
    found = {m: public(p) for m, p in modules.items()}
    assert sum(len(names) for names, _ in found.values()) > 100
    for m, (names, called) in found.items():
        if not names: continue
        assert f'py-{m}.html#' in listed and not {f'{m}.{n}' for n in names} - anchors
        hrefs = [a['href'].partition('#')[2] for a in pages[f'py-{m}.html'].select('.domainindex-table a')]
        assert hrefs[0] == '' and sorted(hrefs[1:]) == sorted(f'{m}.{n}' for n in called)  # its notebook, no constants


def rows(page, id):
    table = page.find(id=id).find_parent('dl').select_one('table')
    return [[td.get_text() for td in tr.find_all('td')] for tr in table.select('tbody tr')]


def test_parameters_are_explained(pages):
    found = rows(pages['02_lockstep.html'], 'effssl.lockstep.embed')
    assert found[1] == ['x', 'Tensor', '', '(B,3,H,W), normalised']
    assert found[-1] == ['returns', 'Tensor', '', '(B,D), or what that step gives']
    assert rows(pages['05_objectives.html'], 'effssl.objectives.feature_std')[0] == ['x', 'Tensor', '(B,D)']
    assert ['lr', 'float | None', 'None', 'for 256 images'] in rows(pages['78_recipes.html'], 'effssl.recipes.Recipe')
    page = pages['frameworks/11_simsiam.html']
    assert page.find('a', href='../05_objectives.html#effssl.objectives.feature_std').code.get_text() == 'feature_std'
    assert 'class SimSiamObjective(Objective):' in page.find('details', 'source').get_text()


HALVE = '''def halve(x:float|None, # what to halve
          scale:str="*a|b*",
         ) -> float: # a half
    "Half of `x`, not of <b> or $x$."
    return x/2  # not a parameter

class _Own: pass'''
TOY = {
    'index': ['m # Toy', 'm See [the licence](../LICENSE), [docs](../docs), [the trick](techniques/77_trick.ipynb).'],
    'techniques/77_trick': [
        'm # A trick', 'm Of `halve` and `scale`, $a_1$ and\n\n$$b^2$$', 'c #| default_exp techniques.trick',
        'c #| export\nimport math', f'c #| export\n{HALVE}', 'c #| hide\nsecret = 1', 'c #| slow\nhalve(2)']}


def test_a_new_notebook_appears_by_itself(tmp_path):
    "Prose, entry, table and source of a toy checkout, letter by letter."
    for f in ('docs', 'settings.ini', 'LICENSE'):
        (shutil.copytree if (ROOT/f).is_dir() else shutil.copy)(ROOT/f, tmp_path/f)
    for name, cells in TOY.items():
        (tmp_path/'nbs'/name).parent.mkdir(parents=True, exist_ok=True)
        kinds = {'m': dict(cell_type='markdown'), 'c': dict(cell_type='code', outputs=[], execution_count=None)}
        cells = [dict(**kinds[c[0]], source=c[2:], metadata={}, id=f'c{i}') for i, c in enumerate(cells)]
        nb = dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)
        (tmp_path/'nbs'/f'{name}.ipynb').write_text(json.dumps(nb))
    pages = build(tmp_path, tmp_path/'out')
    page, index = pages['techniques/77_trick.html'], pages['index.html']
    assert [a.get_text() for a in index.select('.sidebar-tree a')] == ['Overview', 'A trick', 'API']
    assert [c.get_text() for c in index.select('.sidebar-tree .caption-text')] == ['Start', 'Techniques', 'Reference']
    links = {a['href'].removeprefix('https://github.com/effssl/effssl/') for a in index.select('article a')}
    assert {'blob/main/LICENSE', 'tree/main/docs', 'techniques/77_trick.html'} <= links
    entry = page.find(id='effssl.techniques.trick.halve')
    assert entry.get_text().strip('¶\n') == "halve(x: float | None, scale: str = '*a|b*') → float"
    assert rows(page, entry['id']) == [['x', 'float | None', '', 'what to halve'], ['scale', 'str', "'*a|b*'", ''],
                                       ['returns', 'float', '', 'a half']]
    assert entry.find_parent('dl').select_one('dd p').get_text() == 'Half of x, not of <b> or $x$.'
    text = page.select_one('article').get_text()
    assert 'halve(2)' in text and not [t for t in ('secret', '#|', 'import math', '{py:', '***') if t in text]
    assert 'class _Own' in page.find('details').get_text()
    assert [a.get_text() for a in page.select('article p a')] == ['halve'] and len(page.select('.math')) == 2


FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
         '--virtual-time-budget=20000', '--dump-dom']


@pytest.fixture(scope='module')
def browse(pages, folder, tmp_path_factory):
    "Address on our server, or of a file -> the page as headless Chromium leaves it; no other host is in reach."
    if not CHROMIUM: pytest.skip('no chromium or google-chrome on PATH: apt-get install chromium')
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=folder/'html'))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    def dump(address, *flags):
        page = address if '://' in address else f'http://127.0.0.1:{server.server_port}/{address}'
        own = tmp_path_factory.mktemp('chromium')
        # into files: a helper of Chromium that outlives it would keep a pipe open
        with open(own/'page', 'w+') as out, open(own/'log', 'w+') as log:
            command = [CHROMIUM, *FLAGS, *flags, f'--user-data-dir={own}/user', page]
            code = subprocess.run(command, stdout=out, stderr=log, timeout=120).returncode
        assert code == 0, (own/'log').read_text()[-2000:]
        return BeautifulSoup((own/'page').read_text(), 'html.parser')
    yield dump
    server.shutdown()


def test_browser_opens_index(browse):
    page = browse('index.html')
    assert page.h1.get_text().startswith('effssl') and page.select_one('article img[src*="57_ten_minutes"]')
    table = next(t for t in page.select('article table') if t.th.get_text() == 'technique')
    links = {a.get_text(): a['href'] for a in table.select('a')}
    assert links['SimPrune'] == 'techniques/21_simprune.html' and len(links) == len(table.select('tbody tr'))


def test_browser_shows_maths_and_entries(browse):
    page = browse('frameworks/11_simsiam.html')
    assert page.select('mjx-container') and not page.select('mjx-merror')
    assert page.find(id='effssl.frameworks.simsiam.SimSiam')


def test_browser_searches(browse):
    found = [a['href'] for a in browse('search.html?q=feature_std').select('#search-results li a')]
    assert found and found[0].startswith('05_objectives.html') and any('11_simsiam' in f for f in found)


ASK = '''<script>addEventListener('load', () => { const timer = setInterval(() => {
    if (!Search.hasIndex()) return
    clearInterval(timer)
    const first = q => Search._performSearch(...Search._parseQuery(q)).at(-1)
    document.title = JSON.stringify(QUERIES.map(first).map(r => [r[0], r[6]])) }, 10) })</script>'''


def test_search_finds_pages_before_entries(browse, pages, folder):
    "By title, or by a short name; what no page is called leads to its entry."
    own = [name for name in pages if name.startswith(('techniques/', 'frameworks/', 'tutorials/'))]
    wanted = {pages[name].h1.get_text().removesuffix('¶').rstrip('#'): name.removesuffix('.html') for name in own}
    wanted |= dict(ets='techniques/39_ets', cdg='techniques/46_cdg', tome='techniques/31_tome')
    html = (folder/'html/search.html').read_text()
    ask = ASK.replace('QUERIES', json.dumps([*wanted, 'feature_std']))
    (folder/'html/ask.html').write_text(html.replace('</body>', f'{ask}</body>'))
    found = json.loads(browse('ask.html').title.get_text())
    assert found.pop() == ['05_objectives', 'object']
    assert [doc for doc, kind in found] == [*wanted.values()] and 'object' not in {kind for _, kind in found}


PLAY = '''<script>addEventListener('load', () => {
    const all = q => [...document.querySelectorAll('#runs ' + q)], told = {}
    const rows = () => all('.runs tbody tr').filter(r => !r.hidden).map(r => r.cells[0].textContent.trim())
    const heading = name => all('.runs thead button').find(b => b.textContent === name)
    const filter = words => { all('input[type=search]')[0].value = words
                              all('input[type=search]')[0].dispatchEvent(new Event('input')) }
    const choose = (i, column) => { all('select')[i].value = column
                                    all('select')[i].dispatchEvent(new Event('change')) }
    told.best = rows()
    heading('knn20 %').click()
    told.worst = rows()
    heading('framework').click()
    told.sorted = all('th[aria-sort=ascending]').map(th => th.textContent)
    for (const words of ['framework=simclr epochs>7', 'H200', 'nonsense=1']) {
      filter(words)
      told[words] = [rows(), all('[role=status]')[0].textContent] }
    filter('')
    choose(0, 'recipe.lr')
    choose(1, 'recipe.framework')
    told.points = all('circle').length
    all('.runs input').slice(0, 3).forEach(box => box.click())
    told.ticked = all('.runs input:checked').map(box => box.parentNode.textContent.trim())
    told.lines = all('polyline').length
    document.title = JSON.stringify(told) })</script>'''


def test_browser_of_runs(browse, folder):
    "Opened from its file, without a server: sorted, filtered, drawn, two compared, as the records have it."
    records = [json.loads(p.read_text()) for p in (ROOT/'results').rglob('*.json')]
    runs = [r for r in records if isinstance(r, dict) and 'recipe' in r]
    html = (folder/'html/tables/95_browse.html').read_text()
    (folder/'html/tables/play.html').write_text(html.replace('</body>', f'{PLAY}</body>'))
    page = browse((folder/'html/tables/play.html').as_uri())
    told, knn = json.loads(page.title.get_text()), {r['id']: r['scores']['knn20']['accuracy'] for r in runs}
    assert len(told['best']) == len(runs) and knn[told['best'][0]] == max(knn.values())
    assert knn[told['worst'][0]] == min(knn.values()) and told['sorted'] == ['framework']
    chosen = {r['id'] for r in runs if r['recipe']['framework'] == 'simclr' and r['recipe']['epochs'] > 7}
    assert chosen and {*told['framework=simclr epochs>7'][0]} == chosen
    assert {r['id'] for r in runs if 'H200' in r['environment']['device']} == {*told['H200'][0]}
    assert 'no column is called “nonsense”' in told['nonsense=1'][1]
    assert told['points'] == sum(r['recipe']['lr'] is not None for r in runs)
    assert len(told['ticked']) == 2 and told['lines'] >= 2
    differing = page.select_one('#runs section table')
    assert [th.get_text() for th in differing.select('thead th')] == told['ticked'][::-1] or \
           [th.get_text() for th in differing.select('thead th')] == told['ticked']
    values = [[td.get_text() for td in tr.select('td')] for tr in differing.select('tbody tr')]
    assert values and all(a != b for a, b in values)
    assert all(th.button and th['scope'] == 'col' for th in page.select('#runs .runs th[aria-sort]'))


def test_code_does_not_scroll_sideways(browse, folder):
    script = """<script>addEventListener('load', () => { document.title = JSON.stringify(
        [...document.querySelectorAll('.cell_input pre')].map(p => [p.scrollWidth - p.clientWidth,
         Math.round((p.clientHeight - 20)/parseFloat(getComputedStyle(p).lineHeight)), p.textContent])) })</script>"""
    html = (folder/'html/78_recipes.html').read_text()
    (folder/'html/wide.html').write_text(html.replace('</body>', f'{script}</body>'))
    found = json.loads(browse('wide.html', '--window-size=1400,900').title.get_text())
    assert max(len(line) for _, _, text in found for line in text.splitlines()) > 100
    for over, lines, text in found: assert over <= 0 and lines == len(text.splitlines()), text  # nor is it wrapped


def test_no_page_is_wider_than_a_phone(browse, pages, folder):
    "Every notebook, and of the modules, whose pages are all of one kind, the one with most names."
    modules = {n: len(p.select('td')) for n, p in pages.items() if n.startswith('py-')}
    shown = {n: p for n, p in pages.items() if n not in modules or n == max(modules, key=modules.get)}
    note = 'onload="this.title = this.contentDocument.documentElement.scrollWidth"'
    def frame(name, page):  # without scripts where they typeset nothing: as wide, and there sooner
        still = '' if page.select('.math, #runs') else 'sandbox="allow-same-origin"'
        return f'<iframe width="390" height="800" src="{name}" {still} {note}></iframe>'
    (folder/'html/phone.html').write_text('<!DOCTYPE html>' + ''.join(frame(*p) for p in shown.items()))
    widths = {f['src']: int(f.get('title', 0)) for f in browse('phone.html').find_all('iframe')}
    assert widths.keys() == shown.keys() and all(0 < w <= 390 for w in widths.values()), widths
