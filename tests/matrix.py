"What test_together and test_device combine: every framework and technique, small, on a tiny ResNet and a tiny ViT."
from effssl.recipes import arguments, find, names

FAMILIES = {
    'ResNet': dict(encoder='timm:resnet18', encoder_args=dict(layers=[1, 1, 1, 1], channels=[8, 16, 32, 64])),
    'ViT': dict(encoder='vit_tiny_patch16_224', encoder_args=dict(patch_size=8, embed_dim=24, depth=4, num_heads=3))}
SMALL = {  # frameworks' arguments where their own are large
    'barlow_twins': dict(width=32), 'byol': dict(hidden=32), 'dino': dict(prototypes=16, hidden=32),
    'dinov2': dict(prototypes=16, hidden=32), 'mocov1': dict(queue=16), 'mocov2': dict(queue=16),
    'mocov3': dict(hidden=32), 'simsiam': dict(width=32), 'vicreg': dict(width=32),
    'swav': dict(prototypes=16, queue=16, queue_start=0, hidden=32)}
NEED_TOKENS = {'dinov2'}  # frameworks that refuse encoders, and techniques, without all patch tokens
ARGUMENTS = {  # blocks of their own, so that pairs need not act after the same
    'simprune': dict(blocks=[1, 3]), 'dynamicsimprune': dict(blocks=[2], compute=.8), 'evit': dict(blocks=[2]),
    'tome': dict(blocks=[2, 4]), 'last_block': {}, 'resize': {}, 'simwnw': {}, 'accel': {}, 'dual_gating': {},
    'rotation': {}, 'fast_moco': {}, 'cdg': {},
    's3l': dict(stages=[[0, .5], [.8, 1]]), 'ets': dict(start=.5, phases=2)}  # views of 16 px, which blocks divide


def guessed(technique: str) -> dict:
    "Arguments of a technique that nobody has entered above."
    return dict(blocks=[3]) if 'blocks' in arguments(find('technique', technique)) else {}


TECHNIQUES = {t: ARGUMENTS.get(t, guessed(t)) for t in names('technique')}
WORKS = {  # on an encoder of the family
    'ResNet': {'resize', 'simwnw', 'accel', 'dual_gating', 'rotation', 'resolution', 'fast_moco', 'cdg', 'back_razor',
               's3l', 'ets'},
    'ViT': {'simprune', 'dynamicsimprune', 'evit', 'tome', 'last_block', 'simwnw', 'rotation', 'random_tokens',
            'resolution', 'mctf', 'patch_slimming', 'selfslim', 'expediting_vit', 'patch_schedule', 'fast_moco',
            'back_razor', 's3l', 'ets'}}
NEW = {*TECHNIQUES} - WORKS['ResNet'] - WORKS['ViT']  # nobody has said where these work: trains, or a sentence
WAYS = [  # of a technique, other than its first
    ('simwnw', dict(threshold=20., how='exact')), ('simwnw', dict(quota=.25, how='mask')),
    ('simwnw', dict(preset='paper')), ('simwnw', dict(preset='held', most=.6)),
    ('simwnw', dict(quota=.25, how='reuse')),
    ('s3l', dict(stages=[[0, .5], [.8, 1]], attach=.1)), ('ets', dict(hard='loss')),
    ('accel', dict(forward='full', select='examples')), ('accel', dict(scheme='skipping')),
    ('dual_gating', dict(constraint='lagrange', both=True)), ('dual_gating', dict(two_encoders=True)),
    ('simprune', dict(blocks=[1, 3], by='keys')), ('simprune', dict(blocks=[2], strategy='window_by_step')),
    ('evit', dict(blocks=[2], fuse=True, warmup=[.1, .6])), ('tome', dict(blocks=[2, 4], proportional=True)),
    ('selfslim', dict(blocks=[3], distil=2.)), ('random_tokens', dict(blocks=[0], draw='online')),
    ('expediting_vit', dict(blocks=[1, 3]))]
