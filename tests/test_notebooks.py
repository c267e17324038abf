"Every notebook, executed top to bottom in a real kernel, gives what it stores."
import io

import nbformat, numpy as np, papermill, pytest

from conftest import ROOT
from execute import execute
from stored import GLANCE, difference, figures_of, thumbnail

FOUND = [p.relative_to(ROOT/'nbs') for p in (ROOT/'nbs').rglob('*.ipynb')]
NOTEBOOKS = sorted(p.as_posix() for p in FOUND if '.ipynb_checkpoints' not in p.parts)


def flagged(cell, config):
    return '#| slow' in cell.source and not config.getoption('--slow') or '#| cuda' in cell.source


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_notebook(name, tmp_path, pytestconfig):
    path = ROOT/'nbs'/name
    nb = nbformat.read(path, as_version=4)
    if name.startswith('experiments/'):
        once = {'rounds': 1} if 'rounds' in papermill.inspect_notebook(path) else {}
        done = papermill.execute_notebook(path, tmp_path/'out.ipynb', {'out': str(tmp_path), **once}, cwd=path.parent,
                                          kernel_name='python3', progress_bar=False)
        given = figures_of(done, path.stem)
        for figure, png in figures_of(nb, path.stem).items():
            off = np.abs(thumbnail(io.BytesIO(png)) - thumbnail(io.BytesIO(given[figure]))).mean()
            assert off < GLANCE, f'{figure} is not what its notebook draws: python3 dev.py notebooks --only {name}'
        return
    nb.cells = [c for c in nb.cells if not flagged(c, pytestconfig)]
    stored = {c.id: c.get('outputs', []) for c in nb.cells if 'bar' not in c.metadata.get('tags', [])}
    execute(nb, path)
    off = {c.source[:60]: difference(stored[c.id], c.get('outputs', []), numbers='#| varies' not in c.source)
           for c in nb.cells if c.id in stored}
    stale = {cell: how for cell, how in off.items() if how}
    assert not stale, f'stored outputs are not current; run `python3 dev.py notebooks --only {name}`: {stale}'
