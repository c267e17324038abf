"The ways to run: papermill from its command line, the effssl command, a finished run again."
import ast, json, os
from pathlib import Path

import onnxruntime, pytest, torch
from click.testing import CliRunner
from papermill import inspect_notebook
from papermill.cli import papermill

from conftest import ROOT
from effssl.cli import main
from effssl.recipes import Recipe, recipe, recipe_of
from effssl.runs import run, trained_encoder

NOTEBOOK = ROOT/'nbs/experiments/50_pretrain.ipynb'
TINY = ['--dataset', 'digits', '--image-size', '16',
        '--encoder', 'timm:resnet10t', '--encoder-args', '{"channels": [8, 16, 32, 64], "stem": "imagenet"}',
        '--framework-args', '{"width": 32}', '--epochs', '1', '--batch-size', '64',
        '--subset', '256', '--test-subset', '50']


@pytest.mark.parametrize('args, words', [
    (['-p', 'epocs', '3'], ['epocs', 'epochs']), (['-p', 'epochs', 'many'], ["'many'", 'int'])])
def test_papermill_refuses(args, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [str(NOTEBOOK), 'out.ipynb', '-k', 'python3', '--no-progress-bar', '-p', 'out', 'runs', *args]
    done = CliRunner().invoke(papermill, command)
    assert done.exit_code and all(w in str(done.exception) for w in words), done.exception
    assert not (tmp_path/'runs').exists()


def test_a_notebook_in_which_nothing_is_named():
    "Its parameters are a recipe's own values, else the small recipe of the next cell would not be taken."
    found = {p: ast.literal_eval(v['default']) for p, v in inspect_notebook(NOTEBOOK).items()}
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


def test_what_a_run_leaves(tmp_path, capsys):
    "From one training: a line in the list, a log, its history as CSV, features, scores, and files that others read."
    def said(*argv):
        assert main([*argv, '--json']) == 0
        return json.loads(capsys.readouterr().out)
    out = str(tmp_path/'runs')
    folder = Path(said('pretrain', *TINY, '--log', 'csv', '--out', out)['folder'])
    listed, = said('runs', '--out', out)
    assert listed['run'] == folder.name and listed['state'] == 'complete' and listed['epochs'] == '1 of 1'
    phases = [line.split(' ', 2)[2] for line in (folder/'log.txt').read_text().splitlines()]
    assert phases[0] == 'reading digits' and phases[-1] == f'complete: {folder}', phases
    assert list(folder.glob('csv/version_0/metrics.csv'))
    assert said('embed', str(folder), 'digits', str(tmp_path/'x.parquet')) == dict(
        file=str(tmp_path/'x.parquet'), images=1797, features=64)
    assert said('evaluate', str(folder), '--ks', '1,5', '--probe', 'none')['scores'].keys() == {'knn1', 'knn5'}
    told = said('export', str(folder), str(tmp_path/'net.onnx'))
    assert told['transform']['crop'] == 16 and told['run']['id'] == folder.name
    x, (_, net) = torch.randn(3, 3, 16, 16), trained_encoder(folder)
    features, = onnxruntime.InferenceSession(tmp_path/'net.onnx').run(None, {'normalized': x.numpy()})
    with torch.no_grad(): assert (torch.from_numpy(features) - net(x)).abs().max() < 1e-4


LOGS = dict(tensorboard='tensorboard/events.*', wandb='wandb/offline-run-*/*.wandb')


@pytest.mark.parametrize('kind, file', LOGS.items(), ids=LOGS)
def test_loggers(kind, file, tmp_path, monkeypatch):
    "They write into the run's folder, and nowhere else; without a network."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('WANDB_SILENT', 'true')
    r = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t', epochs=1, batch_size=64, subset=128,
               probe=None, encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet'), framework_args=dict(width=32))
    folder = Path(run(r, 'runs', progress=None, log=kind)['folder'])
    assert [*folder.glob(file)], [*folder.rglob('*')]
    assert [p.name for p in tmp_path.iterdir()] == ['runs']
    with pytest.raises(ValueError, match='Did you mean csv'): run(r, 'others', progress=None, log='csf')


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
