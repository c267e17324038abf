"""Git's filter for notebooks, which `dev.py lab` names in this checkout's git config: what was only run is unchanged.

What Jupyter saved has execution counts and metadata of its own; these go, and where a cell is as committed and gives
what is stored, by the suite's own measure, what is stored stays. A clean notebook, as nbdev_clean leaves it, passes as
it is."""
import json, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def saved_by_jupyter(nb): return 'language_info' in nb['metadata'] or any(c.get('execution_count') for c in nb['cells'])


def committed(path):
    "The notebook in git's index, or None."
    done = subprocess.run(['git', 'show', f':{path}'], capture_output=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def settle(nb, old):
    "A notebook cleaned in place, with the outputs of another where they say the same."
    from nbdev.clean import clean_nb
    from nbformat import from_dict
    from nbformat.v4.rwbase import rejoin_lines
    from stored import difference
    clean_nb(nb, allowed_cell_metadata_keys=['tags'])
    nb['metadata'].pop('widgets', None)
    stored = {c['id']: c for c in old['cells']} if old else {}
    for c in nb['cells']:
        if 'bar' in c['metadata'].get('tags', []) and 'outputs' in c: c['outputs'] = []
        before = stored.get(c['id'])
        if not before or before['source'] != c['source'] or not c.get('outputs'): continue
        a, b = (rejoin_lines(from_dict({**nb, 'cells': [x]})).cells[0].outputs for x in (before, c))
        if not difference(a, b, numbers='#| varies' not in ''.join(c['source'])): c['outputs'] = before['outputs']


def settled(raw, path):
    "What git gets of a notebook's bytes; the path is from the top of the checkout."
    try: nb = json.loads(raw)
    except json.JSONDecodeError: return raw  # not whole, or in conflict
    if not saved_by_jupyter(nb): return raw
    settle(nb, committed(path))
    return (json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n').encode()


def after_save(os_path, model, **kw):
    "Jupyter's hook: git takes another size for a change without asking its filter, so it is told of one that is none."
    if model['type'] != 'notebook': return
    git = lambda *args: subprocess.run(['git', *args], cwd=ROOT, capture_output=True)
    if not git('diff', '--numstat', '--', os_path).stdout: git('update-index', '--', os_path)


if __name__ == '__main__': sys.stdout.buffer.write(settled(sys.stdin.buffer.read(), sys.argv[1]))
