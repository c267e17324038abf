"Every framework on every encoder family, with and without a technique; whatever the batch size."
import pytest, torch

from effssl.building import complete, cost
from effssl.cost import training_cost
from effssl.data import load, take
from effssl.encoders import encoder
from effssl.evaluate import mean_macs
from effssl.lockstep import embed
from effssl.recipes import find, names, recipe
from effssl.runs import reevaluate, run
from effssl.techniques.accel import Accel
from effssl.tokens import Prunes
from effssl.train import Pretrain, fit
from effssl.views import random_views, augmentations
from toys import RandomDepth, RandomTokens

VIT = dict(patch_size=8, embed_dim=48, depth=2, num_heads=3)
ENCODERS = {'resnet18': {}, 'timm:resnet18': dict(channels=[8, 16, 32, 64]), 'vit_tiny_patch16_224': VIT,
            'toys.Plain': {}}
NEED_TOKENS = {'dinov2'}  # frameworks that refuse an encoder without patch tokens


@pytest.mark.parametrize('framework', sorted(names('framework')))
@pytest.mark.parametrize('name', ENCODERS)
def test_one_step(framework, name):
    torch.manual_seed(0)
    net = encoder(name, 32, **ENCODERS[name])
    if framework in NEED_TOKENS and not hasattr(net, 'blocks'):
        with pytest.raises(ValueError, match=f'{type(net).__name__} has none: use a ViT'):
            find('framework', framework)(net)
        return
    fw = find('framework', framework)(net)
    loss = fw(fw.walk(random_views(augmentations(fw.augs, 32), 4)))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in fw.parameters() if p.requires_grad)


@pytest.mark.parametrize('framework', sorted(names('framework')))
def test_technique_that_keeps_all_is_no_technique(framework):
    def loss(techniques):
        torch.manual_seed(0)
        fw = find('framework', framework)(encoder('vit_tiny_patch16_224', 32, **VIT), techniques)
        return fw(fw.walk(random_views(augmentations(fw.augs, 32), 4)))
    assert torch.equal(loss([]), loss([RandomTokens(1.)])) and not torch.equal(loss([]), loss([RandomTokens(.5)]))


def test_truncated_walk_leaves_deeper_stages_without_gradient():
    fw = find('framework', 'simsiam')(encoder('resnet18', 32), [RandomDepth()])
    views = random_views(augmentations('mocov2', 32), 4)
    walk = next(w for w in (fw.walk(views, step=s) for s in range(50))
                if (fw.techniques[0].before(w), w.until.startswith('layer2'))[1])
    fw(walk).backward()
    assert fw.encoder.layer2[0].conv1.weight.grad is not None and fw.encoder.layer3[0].conv1.weight.grad is None


def test_cost_with_a_technique():
    tokens = recipe(framework='simclr', encoder='deit_tiny_patch16_224', image_size=224, technique='toys.RandomTokens',
                    technique_args={'share': .5})
    c = cost(complete(tokens), draws=2)
    assert .45 < c['ratio'] < .52 and c['steps'][2]['flops'] < .55*c['steps'][2]['dense_flops']
    depth = recipe(encoder='resnet18', image_size=32, technique='toys.RandomDepth')
    c = cost(complete(depth), draws=40)
    assert .5 < c['ratio'] < .75 and c['draws'] == 40  # uniform over stages: about 61 % without heads
    assert cost(complete(recipe(encoder='resnet18', image_size=32)))['ratio'] == 1


def test_refused_at_construction():
    with pytest.raises(ValueError, match='has none'):
        find('framework', 'simclr')(encoder('resnet18', 32), [RandomTokens()])


def test_counting_leaves_no_trace():
    fw, views = find('framework', 'simsiam')(encoder('resnet18', 32)), random_views(augmentations('mocov2', 32), 2)
    before = {k: v.clone() for k, v in fw.state_dict().items()}
    rng = torch.get_rng_state()
    training_cost(fw, views, draws=2)
    assert all(torch.equal(v, before[k]) for k, v in fw.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for p in fw.parameters())


def test_networks_of_a_technique_are_evaluated_beside_the_encoder(tmp_path):
    "Dual gating's light networks: in the record, in a second look at the run, on other images."
    small = dict(encoder='timm:resnet18', encoder_args=dict(layers=[1, 1, 1, 1], channels=[8, 16, 32, 64]))
    r = recipe(small, dataset='digits', image_size=32, framework='vicreg', framework_args=dict(width=32),
               technique='dual_gating', technique_args=dict(budget=.4), epochs=1, batch_size=64, subset=256,
               test_subset=100)
    record = run(r, tmp_path, 'cpu', None)
    assert set(record['networks']) == {'gated', 'slim'} and 'linear' in record['networks']['slim']['scores']
    for found in record['networks'].values():
        assert 0 < found['reduction'] < 100 and found['macs'] < found['dense_macs']
    again = reevaluate(record['folder'], ks=(20,), subset=256, test_subset=100, probe=None, device='cpu')
    for name in ('gated', 'slim'):
        assert again['networks'][name]['scores']['knn20'] == record['networks'][name]['scores']['knn20']
        assert again['networks'][name]['macs'] == record['networks'][name]['macs']
    elsewhere = reevaluate(record['folder'], 'photos', ks=(1,), subset=100, test_subset=50, probe=None, device='cpu')
    assert 'gated' in elsewhere['networks']


@pytest.mark.parametrize('name', [t for t in names('technique') if issubclass(find('technique', t), Prunes)])
def test_evaluated_as_it_prunes(name):
    "The encoder that takes its technique along gives what the walk with it gives, for fewer MACs; only if asked for."
    torch.manual_seed(0)
    fw = find('framework', 'simclr')(encoder('vit_tiny_patch16_224', 32, **VIT),
                                     [t := find('technique', name)(.7, (1,), pruned=True)])
    light, data = t.networks(fw, None, 32)['pruned'], take(load('digits', 'test', 32), 16, 0)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad(): assert torch.equal(light(x), embed(fw.eval().encoder, x, [t]))
    assert mean_macs(light, data, 32) < .9*mean_macs(fw.encoder, data, 32)
    assert not find('technique', name)(.7, (1,)).networks(fw, None, 32)


@pytest.mark.parametrize('weights, seen', [
    ([1, 1, 1, 1], True), ([1, 0, 0, 0], False)], ids=['depths drawn evenly', 'never the last'])
def test_watch_keeps_the_spread_of_the_embedding(weights, seen):
    "Of walks that reach it, a number for each feature; of those that end at a feature map, nothing."
    kept = []
    class Watched(Pretrain):
        def on_train_epoch_end(self):
            kept.extend(self.seen.stds)
            super().on_train_epoch_end()
    torch.manual_seed(0)
    net = encoder('timm:resnet18', 32, layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])
    framework = find('framework', 'simclr')(net, [Accel(weights=weights)])
    module = Watched(framework, augmentations('simclr', 32), 'sgd', .01)
    history = fit(module, take(load('digits', 'train', 32), 240, 0), 2, 8, device='cpu').history
    assert {tuple(s.shape) for s in kept} == ({(1, 64)} if seen else set())
    assert all(('feature_std' in h) == seen for h in history)
    if seen: assert all(.1 < h['feature_std'] < 2 for h in history)
