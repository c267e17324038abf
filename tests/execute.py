"Execute notebooks in place, as many at a time as there are cores; those that measure times, one by one at the end."
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat, torch
from nbclient import NotebookClient

import kernels
from stored import figures_of

ROOT = Path(__file__).resolve().parent.parent


def execute(nb, path):
    "Run the cells of a notebook in a kernel of its own, where it lies."
    where = {'metadata': {'path': str(path.parent)}}
    NotebookClient(nb, timeout=1200, kernel_name='python3', resources=where, coalesce_streams=True,
                   store_widget_state=False).execute()


def refresh(path):
    """Execute a notebook and keep what it gives, but progress bars, its figures in figures/, too; cells for a GPU that
    is not there stay as they are."""
    nb = nbformat.read(path, as_version=4)
    absent = [] if torch.cuda.is_available() else [c for c in nb.cells if '#| cuda' in c.source]
    run = nbformat.from_dict({**nb, 'cells': [c for c in nb.cells if c not in absent]})
    execute(run, path)
    done = {c.id: c for c in run.cells}
    nb.cells = [done.get(c.id, c) for c in nb.cells]
    for c in nb.cells:
        if 'bar' in c.metadata.get('tags', []): c.outputs = []
    nbformat.write(nb, path)
    for name, png in figures_of(nb, path.stem).items(): (ROOT/'figures'/name).write_bytes(png)
    print(path.relative_to(ROOT), flush=True)


def main(only):
    "All notebooks, or those whose path contains one of these."
    every = [p for p in sorted((ROOT/'nbs').rglob('*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
    paths = [p for p in every if not only or any(o in str(p) for o in only)]
    timed = [p for p in paths if 'paired_times' in p.read_text()]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(refresh, [p for p in paths if p not in timed]))
    for p in timed: refresh(p)


if __name__ == '__main__':
    kernels.start()
    main(sys.argv[1:])
