"Forecasts by the command line: what is refused at once, what is measured, and what happens where memory ends."
import json

import pytest

import effssl.forecast
from effssl.building import complete
from effssl.cli import main
from effssl.forecast import apart
from effssl.recipes import recipe

TINY = dict(dataset='digits', encoder='timm:resnet10t', image_size=16, framework='simclr', batch_size=64, epochs=2)


@pytest.mark.parametrize('bad, words', [(dict(framework='simsam'), 'simsam'), (dict(epochs='two'), "'two'"),
                                        (dict(dataset='digit'), 'digits')])
def test_refused_before_anything_is_measured(bad, words, capsys, monkeypatch):
    monkeypatch.setattr(effssl.forecast, 'apart', None)  # whoever would measure fails otherwise
    assert main(['cost', '--time', *[f'--{k.replace("_", "-")}={v}' for k, v in (TINY | bad).items()]]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_cost_time(capsys):
    given = [f'--{k.replace("_", "-")}={v}' for k, v in TINY.items()]
    assert main(['cost', '--time', *given, '--device', 'cpu', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['steps'] == 2*(1347//64) and found['seconds'] > found['parts']['start'] > .5 and found['disk'] > 10**6


@pytest.mark.slow
def test_a_process_that_is_killed(tmp_path, monkeypatch):
    (tmp_path/'greedy.py').write_text("import os\ndef images(): os.kill(os.getpid(), 9)\n")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=':')
    from dataclasses import replace
    r = replace(complete(recipe(TINY)), dataset='greedy.images')
    with pytest.raises(RuntimeError, match='signal 9.*lower batch_size'): apart([r], 'cpu', 1.)
