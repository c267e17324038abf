"The ways to run: papermill from its command line, the effssl command, a finished run again."
import ast, json, os, subprocess, sys
from pathlib import Path

import papermill, pytest

from conftest import ROOT
from effssl.cli import main
from effssl.recipes import Recipe, recipe_of

NOTEBOOK = ROOT/'nbs/experiments/50_pretrain.ipynb'
TINY = ['--dataset', 'digits', '--image-size', '16',
        '--encoder', 'timm:resnet10t', '--encoder-args', '{"channels": [8, 16, 32, 64], "stem": "imagenet"}',
        '--framework-args', '{"width": 32}', '--epochs', '1', '--batch-size', '64',
        '--subset', '256', '--test-subset', '50']


def papermill_cli(tmp_path, *args):
    command = [sys.executable, '-m', 'papermill', NOTEBOOK, tmp_path/'out.ipynb', '-k', 'python3', '--no-progress-bar']
    return subprocess.run([*command, '-p', 'out', tmp_path/'runs', *args], capture_output=True, text=True, cwd=tmp_path)


@pytest.mark.parametrize('args, words', [
    (['-p', 'epocs', '3'], ['epocs', 'epochs']), (['-p', 'epochs', 'many'], ["'many'", 'int'])])
def test_papermill_refuses(args, words, tmp_path):
    done = papermill_cli(tmp_path, *args)
    assert done.returncode != 0 and all(w in done.stderr for w in words), done.stderr[-2000:]
    assert not (tmp_path/'runs').exists()


def test_a_notebook_in_which_nothing_is_named():
    "Its parameters are a recipe's own values, else the small recipe of the next cell would not be taken."
    found = {p: ast.literal_eval(v['default']) for p, v in papermill.inspect_notebook(NOTEBOOK).items()}
    assert recipe_of(found)[0] == Recipe()


def test_command_line(tmp_path, capsys):
    assert main(['pretrain', *TINY, '--out', str(tmp_path), '--json']) == 0
    first = json.loads(capsys.readouterr().out)
    record = Path(first['folder'])/'run.json'
    changed = os.stat(record).st_mtime_ns
    assert main(['pretrain', *TINY, '--out', str(tmp_path)]) == 0  # again: at once, the folder printed last
    assert capsys.readouterr().out.strip().splitlines()[-1] == first['folder']
    assert os.stat(record).st_mtime_ns == changed
    assert first['scores']['knn20']['protocol'].startswith('kNN k=20')
    assert {'flops_per_image', 'seconds_per_step'} <= first['cost'].keys()


def test_recipe_file_and_options(tmp_path, capsys):
    (tmp_path/'r.yml').write_text('framework: simclr\nencoder: deit_tiny_patch16_224\nimage_size: 224\n')
    asked = ['cost', '--recipe', str(tmp_path/'r.yml')]
    assert main([*asked, '--technique', 'toys.RandomTokens', '--set', 'share=0.8', '--draws', '2', '--json']) == 0
    c = json.loads(capsys.readouterr().out)
    assert {'dense_flops', 'flops', 'ratio', 'steps'} <= c.keys() and .75 < c['ratio'] < .82
    assert main(asked) == 0 and 'GFLOPs a training step' in capsys.readouterr().out


def test_errors_are_one_line(capsys):
    for argv in (['pretrain', '--framework', 'simsam'], ['cost', '--set', 'x'], ['cost', '--epochs', 'x'],
                 ['cost', '--recipe', 'ten_minute'], ['sweep', 'x.yml', '--nice', '20']):
        assert main(argv) == 2
        assert capsys.readouterr().err.startswith('effssl: ')


def test_list(capsys):
    assert main(['list', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert {'simclr', 'simsiam'} <= set(found['frameworks'])
    assert 'photos' in found['datasets'] and 'resnet18' in found['encoders'] and 'ten_minutes' in found['recipes']
