"README.md from nbs/index.ipynb: its prose, code and outputs, hidden input folded away. `--check` only compares."
import json, re, sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def text_of(output) -> str:
    "An output as Markdown: text in a fence, Markdown as it is."
    data = output.get('data', {})
    if 'text/markdown' in data: return ''.join(data['text/markdown'])
    text = ''.join(output.get('text') or data.get('text/plain', '')).rstrip()
    return text and f'```\n{text}\n```'


def shown(cell) -> str:
    "A cell as Markdown; a hidden input stands folded below what it gave."
    text = ''.join(cell['source'])
    if cell['cell_type'] == 'markdown': return text
    code = f'```python\n{text}\n```'
    given = [t for t in map(text_of, cell['outputs']) if t]
    if 'hide-input' not in cell['metadata'].get('tags', []): return '\n\n'.join([code, *given])
    return '\n\n'.join([*given, f'<details><summary>The cell that made this</summary>\n\n{code}\n\n</details>'])


def render() -> str:
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(ROOT/'settings.ini')
    site = ini['DEFAULT']['doc_host'] + ini['DEFAULT']['doc_baseurl']
    cells = json.loads((ROOT/'nbs/index.ipynb').read_text())['cells']
    text = '\n\n'.join(map(shown, cells)) + '\n'
    for folder in ('frameworks', 'techniques', 'tutorials', 'experiments', 'tables', 'probes'):
        text = text.replace(f']({folder}/', f'](nbs/{folder}/')
    text = re.sub(r'\]\((?=\d\d_)', '](nbs/', text)
    text = text.replace('](#modindex)', f']({site}/py-modindex.html)')
    return text.replace('](../', '](').replace("'../results", "'results").replace("'../nbs", "'nbs")


if __name__ == '__main__':
    path, text = ROOT/'README.md', render()
    if '--check' not in sys.argv: path.write_text(text)
    elif not path.exists() or path.read_text() != text:
        sys.exit('README.md is not what nbs/index.ipynb says: python3 dev.py notebooks --only index')
