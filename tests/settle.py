"""Git's filter for notebooks, which `dev.py lab` names in this checkout's git config: one that was only run is unchanged.

What Jupyter saved has execution counts and metadata of its own; these go, and where a cell is as committed and gives what
is stored, by the suite's own measure, what is stored stays. A clean notebook, as nbdev_clean leaves it, passes as it is."""
import json, subprocess, sys


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


def main(path):
    raw = sys.stdin.buffer.read()
    try: nb = json.loads(raw)
    except json.JSONDecodeError: nb = None  # not whole, or in conflict
    if nb and saved_by_jupyter(nb):
        settle(nb, committed(path))
        raw = (json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False) + '\n').encode()
    sys.stdout.buffer.write(raw)


if __name__ == '__main__': main(sys.argv[1])
