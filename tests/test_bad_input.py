"Bad input gets an error that names the value and the remedy, before any training."
import subprocess, sys

import pytest, torch

from conftest import ROOT
from effssl.runs import run
from effssl.recipes import read_recipe, recipe

SMALL = dict(dataset='digits', image_size=16, encoder='timm:resnet10t',
             encoder_args={'channels': [8, 16, 32, 64], 'stem': 'imagenet', 'stem_width': 8}, epochs=1, batch_size=64)
VIT = dict(encoder='vit_tiny_patch16_224', encoder_args={'depth': 1})
CNN = dict(encoder='timm:resnet18', encoder_args={'layers': [1, 1, 1, 1], 'channels': [8, 16, 32, 64]}, image_size=32)
CASES = [  # what is off, what the error must say (the value, and the remedy)
    (dict(dataset='cifar-10'), ['cifar-10', 'cifar10']),
    (dict(dataset='imagenet100'), ['imagenet100', 'EFFSSL_DATA']),
    (dict(dataset='folder:/nowhere/at/all'), ['/nowhere/at/all', 'check the path']),
    (dict(dataset='zip:/nowhere.zip'), ['/nowhere.zip']),
    (dict(encoder='resnet81', encoder_args={}), ['resnet81', 'resnet18']),
    (dict(encoder='nowhere.make', encoder_args={}), ['nowhere.make', 'package.module.function']),
    (dict(encoder_args={'width': 3}), ['width']),
    (dict(encoder_args={'stem': 'cifer'}), ['cifer', 'cifar']),
    (dict(view_args={'blurr': 1}), ['blurr', 'Did you mean blur']),
    (dict(view_args={'scale': .2}), ['scale is 0.2', 'like [0.2, 1.0]', 'low to high']),
    (dict(view_args={'scale': [.2, 1, 1]}), ['[0.2, 1, 1]', 'like [0.2, 1.0]']),
    (dict(view_args={'flip': 1.5}), ['flip is 1.5', 'a probability']),
    (dict(view_args='blur'), ["'blur'", 'JSON']),
    (dict(encoder_args={'zero_init_residul': False}), ['zero_init_residul']),
    (dict(framework='simsam'), ['simsam', 'simsiam']),
    (dict(framework='nowhere.SimSiam'), ['nowhere.SimSiam', 'package.module.Class']),
    (dict(framework_args={'widht': 3}), ['widht']),
    (dict(framework='simclr', framework_args={'temperature': -1}), ['-1', 'positive']),
    (dict(framework='byol', framework_args={'hidden': 0}), ['hidden 0', 'at least 1']),
    (dict(framework='byol', framework_args={'momentum': 1.}), ['momentum 1.0', '[0, 1)']),
    (dict(framework='mocov2', framework_args={'queue': 50}), ['queue 50', 'batch of 64', 'batch_size=50', 'queue=64']),
    (dict(framework='mocov2'), ['queue 4096', 'set of 1347 images', 'queue=1344']),
    (dict(framework='mocov1', framework_args={'temperature': 0}), ['temperature 0', 'positive']),
    (dict(framework='swav', framework_args={'temperature': 0}), ['temperature 0', 'positive']),
    (dict(framework='swav', framework_args={'epsilon': -.05}), ['epsilon -0.05', 'positive']),
    (dict(framework='swav', framework_args={'prototypes': 0}), ['prototypes 0', 'at least 1']),
    (dict(framework='swav', framework_args={'queue': -1}), ['queue -1', 'at least 0']),
    (dict(framework='swav', framework_args={'queue': 40}), ['queue 40', 'batch of 64', 'queue=64', 'batch_size=40']),
    (dict(framework='swav', framework_args={'queue': 3840}), ['queue 3840', '1347 images', 'queue=1344']),
    (dict(framework='vicreg', framework_args={'covariance': -1}), ['covariance -1', 'not be negative', '25']),
    (dict(framework='vicreg', framework_args={'invariance': -25.}), ['invariance -25.0', 'not be negative']),
    (dict(framework='vicreg', framework_args={'width': 0}), ['width 0', 'at least 1', 'e.g. 2048']),
    (dict(framework='barlowtwins', framework_args={'weight': -.005}),
     ['weight -0.005', 'not be negative', 'e.g. 0.0051']),
    (dict(framework='barlowtwins', framework_args={'scale': 0}), ['scale 0', 'positive']),
    (dict(framework='barlowtwins', framework_args={'layers': 0}), ['layers 0', 'at least 1']),
    (dict(framework='dinov2'), ['ResNet', 'use a ViT']),
    (dict(framework='dinov2', framework_args={'mask_share': 2}, **VIT), ['mask_share 2', '[0, 1]']),
    (dict(framework='dinov2', framework_args={'centring': 'sinkhron'}, **VIT), ['sinkhron', 'sinkhorn']),
    (dict(technique='simprun'), ['simprun', 'Known']),
    (dict(technique='toys.RandomTokens'), ['ResNet', 'ViT']),
    (dict(technique='toys.RandomTokens', technique_args={'share': 1.3}, **VIT), ['1.3', '(0, 1]']),
    (dict(technique='simprune'), ['ResNet', 'tokens of a ViT']),
    (dict(technique='simprune', technique_args={'keep_rate': 1.3}, **VIT), ['keep_rate 1.3', '(0, 1]']),
    (dict(technique='simprune', technique_args={'blocks': [1, 20]}, **VIT), ['[1, 20]', 'among 1 to']),
    (dict(technique='simprune', technique_args={'strategy': 'windows'}, **VIT), ['windows', 'Did you mean window']),
    (dict(technique='dynamicsimprune', technique_args={'compute': 0.}, **VIT), ['compute 0.0', '(0, 1]']),
    (dict(technique='simwnw', technique_args={'quota': 1.3}, **CNN), ['quota 1.3', '[0, 1)', 'e.g. 0.25']),
    (dict(technique='simwnw', technique_args={'quota': .9}, **CNN), ['quota 0.9', 'at most 0.75']),
    (dict(technique='simwnw', technique_args={'block': 64}, **CNN), ['block 64', 'smaller than the view of 32 px']),
    (dict(technique='simwnw', technique_args={'block': 5}, **CNN), ['blocks of 5 px', 'overlap=True']),
    (dict(technique='simwnw', technique_args={'block': 4, 'quota': .875}, **CNN),
     ['32 × 4', 'stride 8', 'at most 0.75']),
    (dict(technique='simwnw', technique_args={'threshold': 20.}, **CNN), ['threshold 20', "how='exact' or 'mask'"]),
    (dict(technique='simwnw', technique_args={'preset': 'papper'}, **CNN), ['papper', 'paper']),
    (dict(technique='simwnw', technique_args={'how': 'exact', 'both': False}, **CNN), ['both=True']),
    (dict(technique='simwnw', technique_args={'how': 'mask'}, framework='dino', **VIT), ["'mask'", 'ViT drops tokens']),
    (dict(technique='simwnw', framework='dinov2', **VIT), ['DINOv2', 'use DINO or MoCo v3']),
    (dict(technique='simwnw', encoder='toys.NoSteps', encoder_args={}), ['NoSteps', '@steps.register']),
    (dict(framework='simclr', technique='accel', technique_args={'region': 1.3}, **CNN),
     ['region 1.3', '(0, 1]', 'e.g. 0.75']),
    (dict(framework='simclr', technique='accel', technique_args={'windows': 0}, **CNN), ['windows 0', 'at least 1']),
    (dict(framework='simclr', technique='accel', technique_args={'depths': [1, 5]}, **CNN),
     ['depths [1, 5]', 'stages 1 to 4']),
    (dict(framework='simclr', technique='accel', technique_args={'weights': [1, -1, 1, 1]}, **CNN),
     ['weights [1, -1, 1, 1]', 'not negative']),
    (dict(framework='simclr', technique='accel', technique_args={'select': 'hardest'}, **CNN), ['hardest', 'hard']),
    (dict(framework='simclr', technique='accel', **VIT), ['VisionTransformer', 'use a ResNet']),
    (dict(framework='mocov2', technique='accel', framework_args={'queue': 2048}, **CNN),
     ['queue 2048', 'set of 1347 images']),
    (dict(technique='dual_gating', technique_args={'budget': 1.3}, **CNN), ['budget 1.3', '(0, 1]', 'e.g. 0.3']),
    (dict(technique='dual_gating', technique_args={'budget': .01}, **CNN),
     ['budget 0.01 cannot be reached', 'of the MACs are in the stem']),
    (dict(technique='dual_gating', technique_args={'constraint': 'lagrnge'}, **CNN), ['lagrnge', 'lagrange']),
    (dict(technique='dual_gating', technique_args={'warmup_epochs': -1}, **CNN), ['warmup_epochs -1', 'at least 0']),
    (dict(technique='dual_gating', **VIT), ['VisionTransformer', 'no residual blocks', 'use a ResNet']),
    (dict(technique='dual_gating', encoder='timm:seresnet18', image_size=32),
     ['layer1.0.conv1', 'squeeze-and-excitation', 'plain ResNet']),
    (dict(technique='resize', technique_args={'quota': -1}, **CNN), ['quota -1', '[0, 1)']),
    (dict(technique='evit', technique_args={'keep_rate': 0}, **VIT), ['keep_rate 0', '(0, 1]']),
    (dict(technique='effssl.tiles.Tiled', **VIT), ['VisionTransformer', 'use a ResNet']),
    (dict(technique='effssl.tiles.Tiled', encoder='timm:resnet26', encoder_args={'drop_path_rate': .1}),
     ['DropPath', 'drop_path_rate']),
    (dict(technique='tome', technique_args={'keep_rate': .3}, **VIT), ['keep_rate 0.3', 'halve']),
    (dict(technique_args={'keep_rate': .8}), ['keep_rate', 'without a technique']),
    (dict(technique_args='{keep'), ['{keep', 'JSON']),
    (dict(batch_size=1), ['batch_size 1', 'at least 2']),
    (dict(batch_size=5000), ['5000', '1347']),
    (dict(subset=32), ['32', '64', 'lower the batch']),
    (dict(image_size=8, **VIT), ['8', 'smaller than a patch', 'patch_size']),
    (dict(image_size=40, **VIT), ['40', '32 or 48']),
    (dict(image_size=2), ['image_size 2', 'at least 4']),
    (dict(epochs=0), ['epochs 0', 'at least 1']),
    (dict(epochs=-3), ['epochs -3']),
    (dict(epochs='ten'), ["'ten'", 'int']),
    (dict(epochs=2.5), ['2.5', 'int']),
    (dict(epochs=True), ['True', 'int']),
    (dict(lr=-.1), ['lr -0.1', 'at least 0']),
    (dict(lr=float('nan')), ['lr nan']),
    (dict(lr='fast'), ["'fast'", 'float']),
    (dict(weight_decay=-1.), ['weight_decay -1']),
    (dict(warmup_epochs=20), ['20', '1 epochs']),
    (dict(clip=0.), ['clip 0']),
    (dict(accumulate=0), ['accumulate 0']),
    (dict(optimizer='adam'), ["'adam'", 'adamw']),
    (dict(precision='fp16'), ['fp16', 'bf16']),
    (dict(precision='fp64'), ['fp64', 'bf16']),
    (dict(k=0), ['k 0']),
    (dict(k=2000), ['2000', '1347']),
    (dict(temperature=0.), ['temperature 0']),
    (dict(probe='moko'), ['moko', 'moco']),
    (dict(init='nowhere.ckpt'), ['nowhere.ckpt']),
    (dict(local_views=6), ['6', 'no local']),
    (dict(epoch=3), ["'epoch'", 'epochs']),
    (dict(seed=-1), ['seed -1'])]


@pytest.mark.parametrize('bad, words', CASES, ids=[next(f'{k}={v}' for k, v in c.items()) for c, _ in CASES])
def test_refused_before_training(bad, words, tmp_path, monkeypatch):
    monkeypatch.setenv('EFFSSL_DATA', str(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError)) as e:
        run(recipe({**SMALL, **bad}), tmp_path/'runs', 'cpu', None)
    assert all(w in str(e.value) for w in words), str(e.value)
    assert not (tmp_path/'runs').exists()


@pytest.mark.parametrize('text, words', [
    ('dataset: digits\nepocs: 3', ['epocs', 'epochs']), ('- digits', ['name: value']), ('a: [', ['not YAML']),
    (None, ['no recipe file'])])
def test_recipe_file(text, words, tmp_path):
    if text is not None: (tmp_path/'r.yml').write_text(text)
    with pytest.raises((ValueError, FileNotFoundError)) as e: read_recipe(tmp_path/'r.yml')
    assert all(w in str(e.value) for w in words), str(e.value)


@pytest.mark.parametrize('device', ['gpu', 'cuda'])
def test_device(device):
    if device == 'cuda' and torch.cuda.is_available(): pytest.skip('there is a GPU')
    with pytest.raises(ValueError, match='cpu'): run(recipe(SMALL), device=device)


def test_a_folder_called_effssl_hides_nothing(tmp_path):
    "As beside a fresh clone: a script there, and the processes that it starts, find the package."
    (tmp_path/'effssl').mkdir()
    found = subprocess.run([sys.executable, '-c', 'import effssl.cli; print(effssl.__file__)'], cwd=tmp_path,
                           capture_output=True, text=True)
    assert found.stdout.strip() == str(ROOT/'effssl'/'__init__.py'), found.stderr[-500:]
