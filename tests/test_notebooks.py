"Every notebook is one item: executed top to bottom in a real kernel. Then: are the committed figures current?"
import os
import nbformat, numpy as np, papermill, pytest
from nbclient import NotebookClient
from PIL import Image

from conftest import ROOT

NOTEBOOKS = sorted(p.relative_to(ROOT/'nbs').as_posix() for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


def flagged(cell, config): return '#| slow' in cell.source and not config.getoption('--slow') or '#| cuda' in cell.source


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook(name, tmp_path, pytestconfig):
    path = ROOT/'nbs'/name
    if name.startswith('experiments/'):
        papermill.execute_notebook(path, tmp_path/'out.ipynb', {'out': str(tmp_path)}, cwd=path.parent, kernel_name='python3', progress_bar=False)
        return
    committed = nbformat.read(path, as_version=4)
    nb = nbformat.from_dict({**committed, 'cells': [c for c in committed.cells if not flagged(c, pytestconfig)]})
    before = {c.id: [o.output_type for o in c.get('outputs', [])] for c in nb.cells if 'bar' not in c.metadata.get('tags', [])}
    NotebookClient(nb, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}, coalesce_streams=True).execute()
    stale = [c.source[:60] for c in nb.cells if c.id in before and bool(before[c.id]) != bool([o.output_type for o in c.get('outputs', [])])]
    assert not stale, f'stored outputs are not current; run `python3 dev.py notebooks --only {name}`: {stale}'


def thumbnail(path): return np.asarray(Image.open(path).convert('L').resize((48, 24), Image.Resampling.BOX), float)


@pytest.mark.parametrize('name', sorted(p.name for p in (ROOT/'figures').glob('*.png')))
def test_figure_is_current(name):
    drawn = os.path.join(os.environ['EFFSSL_FIGURES'], name)
    if not os.path.exists(drawn): pytest.skip('its notebook did not run in this session')
    new, old = thumbnail(drawn), thumbnail(ROOT/'figures'/name)
    assert np.abs(new - old).mean() < 4, f'{name} is not what its notebook draws: python3 dev.py notebooks'
