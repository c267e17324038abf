"Whether a notebook gives what it stores: text letter by letter, numbers within rounding, pictures at a glance."
import base64, io, re

import numpy as np
from PIL import Image

NUMBER = re.compile(r'[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?')
ROUNDING = .02  # of a number: processors and numbers of threads sum in other orders, and short trainings grow that
GLANCE = 4      # grey levels of 255, the mean over a thumbnail


def thumbnail(png):
    "A picture as (24,48) grey levels."
    return np.asarray(Image.open(png).convert('L').resize((48, 24), Image.Resampling.BOX), float)


def text_of(outputs) -> str:
    "What a cell printed, then what it displayed, as text; standard error, which comes when it likes, left out."
    printed = [o['text'] for o in outputs if o.output_type == 'stream' and o['name'] == 'stdout']
    shown = [o.data.get(k, '') for o in outputs if 'data' in o for k in ('text/plain', 'text/markdown')]
    return re.sub(r'\s+', ' ', '\n'.join([*printed, *shown])).strip()


def pictures_of(outputs) -> list:
    found = [o.data['image/png'] for o in outputs if 'image/png' in o.get('data', {})]
    return [thumbnail(io.BytesIO(base64.b64decode(png))) for png in found]


def figures_of(nb, stem:str) -> dict[str, bytes]:
    "What a notebook gives to figures/: file name -> PNG, of the cells that say `#| figure NAME`."
    named = [(said[1], c) for c in nb.cells if (said := re.search(r'^#\| figure (\w+)$', c.source, re.M))]
    return {f'{stem[:2]}_{name}.png': base64.b64decode(o.data['image/png'])
            for name, c in named for o in c.outputs if 'image/png' in o.get('data', {})}


def value(number:str) -> float: return float(number.replace(',', '').replace('−', '-'))


def last_digit(number:str) -> float:
    "What one more in the last printed digit is; 0 of whole numbers, which are exact."
    digits, e, exponent = number.partition('e')
    decimals = len(digits.partition('.')[2])
    return 1.01*10**(int(exponent or 0) - decimals) if e or decimals else 0.


def alike(a:str, b:str) -> bool:
    "Whether two printed numbers differ by their last digit, or by `ROUNDING`, at most."
    if a == b: return True  # 94e335, of a hash, is infinite
    return abs(value(a) - value(b)) <= max(last_digit(a), last_digit(b), ROUNDING*max(abs(value(a)), abs(value(b))))


def difference(stored, given, numbers:bool=True) -> str:
    "How two lists of outputs differ, or ''."
    a, b = text_of(stored), text_of(given)
    words = [re.sub(r'-{2,}', '-', NUMBER.sub('#', t)) for t in (a, b)]
    if words[0] != words[1]:
        at = next((i for i, (x, y) in enumerate(zip(*words)) if x != y), min(map(len, words)))
        return f'stored …{words[0][max(0, at - 30):at + 50]!r}, given …{words[1][max(0, at - 30):at + 50]!r}'
    off = [f'{x} is {y}' for x, y in zip(NUMBER.findall(a), NUMBER.findall(b)) if not alike(x, y)] if numbers else []
    if off: return f'{len(off)} numbers: {", ".join(off[:5])}'
    old, new = pictures_of(stored), pictures_of(given)
    if len(old) != len(new): return f'{len(old)} pictures stored, {len(new)} given'
    far = [np.abs(x - y).mean() for x, y in zip(old, new)]
    return f'a picture is off by {max(far):.1f} grey levels' if numbers and far and max(far) > GLANCE else ''
