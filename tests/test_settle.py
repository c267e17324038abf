"A notebook that Jupyter executed and saved is no change for git; one that says something else is."
import base64, io, json, shutil, subprocess, sys

import nbformat, pytest
from PIL import Image

from conftest import ROOT

NAME = 'nbs/tutorials/41_see_what_is_removed.ipynb'


def git(folder, *args):
    own = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    return subprocess.run(['git', *own, *args], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path):
    "A repository with one notebook, prepared as `dev.py lab` prepares it."
    for f in ('dev.py', '.gitattributes', '.gitignore', 'tests/settle.py', 'tests/stored.py', NAME):
        (tmp_path/f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT/f, tmp_path/f)
    git(tmp_path, 'init', '-q')
    git(tmp_path, 'add', '.')
    git(tmp_path, 'commit', '-qm', 'all')
    prepare = 'import dev, pathlib, sys; dev.settle_notebooks(pathlib.Path(sys.executable))'
    subprocess.run([sys.executable, '-c', prepare], cwd=tmp_path, check=True)
    return tmp_path


def repacked(png):
    "The same picture in other bytes."
    out = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB').save(out, 'png', compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def executed(path, change=lambda nb: None):
    "Save a notebook as after a run in JupyterLab."
    nb = nbformat.read(path, as_version=4)
    nb.metadata.kernelspec.display_name = 'Python 3 (ipykernel)'
    nb.metadata.language_info = dict(name='python', version='3.12.1')
    for n, c in enumerate([c for c in nb.cells if c.cell_type == 'code'], 1):
        c.execution_count, c.metadata['execution'] = n, {'iopub.execute_input': '2000-01-01T00:00:00Z'}
        for o in c.outputs:
            if 'execution_count' in o: o.execution_count = n
            if 'image/png' in o.get('data', {}): o.data['image/png'] = repacked(o.data['image/png'])
        if 'bar' in c.metadata.get('tags', []):
            c.outputs = [nbformat.v4.new_output('display_data', {'text/plain': f'VBox(children={n})'})]
    c.outputs.append(nbformat.v4.new_output('stream', name='stderr', text='a warning'))
    change(nb)
    nbformat.write(nb, path)


def test_a_run_is_no_change(checkout):
    before = (checkout/NAME).read_bytes()
    executed(checkout/NAME)
    assert (checkout/NAME).read_bytes() != before
    hook = f'from settle import after_save; after_save({str(checkout/NAME)!r}, dict(type="notebook"))'
    subprocess.run([sys.executable, '-c', hook], cwd=checkout/'tests', check=True)
    assert git(checkout, 'status', '--porcelain') == ''
    assert git(checkout, 'show', f':{NAME}') == before.decode()


def other(nb):
    "Another text, another source, another picture."
    black = io.BytesIO()
    Image.new('RGB', (500, 260)).save(black, 'png')
    outputs = [o for c in nb.cells for o in c.get('outputs', [])]
    next(o for o in outputs if 'text' in o).text += 'more'
    next(c for c in nb.cells if 'show_pruned(alone' in c.source).source += '  # again'
    picture = next(o for o in outputs if 'image/png' in o.get('data', {}))
    picture.data['image/png'] = base64.b64encode(black.getvalue()).decode()


def test_what_differs_is_a_change(checkout):
    executed(checkout/NAME, other)
    found = [x for x in git(checkout, 'diff', '-U0').splitlines() if x.startswith('+') and not x.startswith('+++')]
    assert len(found) == 5 and ['more' in x for x in found].count(True) == 1, found  # the source's picture is its own


def test_a_clean_notebook_passes_as_it_is(checkout):
    nb = json.loads((checkout/NAME).read_text())
    cell = next(c for c in nb['cells'] if '#| varies\n' in c['source'])
    cell['outputs'][0]['text'] = ['other times\n']
    (checkout/NAME).write_text(json.dumps(nb, indent=1, sort_keys=True, ensure_ascii=False) + '\n')
    assert 'other times' in git(checkout, 'diff')
