"README.md from nbs/index.ipynb: its prose, code and text outputs. `--check` only compares."
import json, re, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def render() -> str:
    parts = []
    for cell in json.loads((ROOT/'nbs/index.ipynb').read_text())['cells']:
        text = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(text)
            continue
        parts.append(f'```python\n{text}\n```')
        outputs = [o for o in cell['outputs'] if o['output_type'] != 'error']
        shown = [''.join(o.get('text') or o['data'].get('text/plain', '')).rstrip() for o in outputs]
        if any(shown): parts.append('```\n' + '\n'.join(s for s in shown if s) + '\n```')
    text = '\n\n'.join(parts) + '\n'
    for folder in ('frameworks', 'techniques', 'tutorials', 'experiments', 'tables', 'probes'):
        text = text.replace(f']({folder}/', f'](nbs/{folder}/')
    text = re.sub(r'\]\((?=\d\d_)', '](nbs/', text)
    return text.replace('](../', '](').replace("'../results", "'results").replace("'../nbs", "'nbs")


if __name__ == '__main__':
    path, text = ROOT/'README.md', render()
    if '--check' not in sys.argv: path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        sys.exit('README.md is not what nbs/index.ipynb says: python3 dev.py notebooks --only index')
