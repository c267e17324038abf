"The sliders of `explore_views` in a real kernel, moved as a browser moves them: by a message to the widget's model."
import pytest
from jupyter_client.manager import start_new_kernel

from conftest import ROOT


@pytest.fixture(scope='module')
def kernel():
    manager, client = start_new_kernel(kernel_name='python3', cwd=str(ROOT/'nbs'/'tutorials'))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def answers(client, sent):
    "Everything the kernel publishes in answer to a message."
    out = []
    while True:
        m = client.get_iopub_msg(timeout=120)
        if m['parent_header'].get('msg_id') != sent: continue
        assert m['msg_type'] != 'error', '\n'.join(m['content']['traceback'])
        if m['msg_type'] == 'status' and m['content']['execution_state'] == 'idle': return out
        out.append(m)


def move(client, model, value):
    "Set a slider's value from the browser's side; the pictures that come back."
    data = dict(method='update', state=dict(value=value), buffer_paths=[])
    m = client.session.msg('comm_msg', dict(comm_id=model, data=data))
    client.shell_channel.send(m)
    found = answers(client, m['header']['msg_id'])
    assert not [o for o in found if o['msg_type'] in ('display_data', 'stream')], 'a figure or a text beside the widget'
    updates = [o for o in found if o['msg_type'] == 'comm_msg' and o['buffers']]
    return [(o['content']['comm_id'], bytes(o['buffers'][0])) for o in updates]


def opened(client, code):
    "A widget that code shows: its sliders' models by their labels, its image's model, and the picture it begins with."
    found = answers(client, client.execute(code))
    results = [m['content']['data'] for m in found if m['msg_type'] == 'execute_result']
    assert ['application/vnd.jupyter.widget-view+json' in data for data in results] == [True]
    states = {m['content']['comm_id']: m['content']['data']['state'] for m in found if m['msg_type'] == 'comm_open'}
    sliders = {s['description']: i for i, s in states.items() if s.get('description')}
    image = next(i for i, s in states.items() if s['_model_name'] == 'ImageModel')
    pictures = [m['buffers'][0] for m in found if m['msg_type'] == 'comm_msg' and m['content']['comm_id'] == image]
    return sliders, image, bytes(pictures[-1])


def check_redraws(client, sliders, image, start, moves):
    "Every move of a slider draws a picture that was not there before."
    drawn = [start]
    assert start.startswith(b'\x89PNG')
    for name, value in moves.items():
        (target, png), = move(client, sliders[name], value)
        assert target == image and png.startswith(b'\x89PNG') and png not in drawn, name
        drawn.append(png)


def test_sliders_redraw(kernel):
    sliders, image, start = opened(kernel, 'from effssl.show import explore_views\nexplore_views()')
    assert set(sliders) == {'photo', 'crop', 'colour', 'seed'}
    check_redraws(kernel, sliders, image, start, {'crop': .2, 'colour': .9, 'seed': 7})
    for name, value in (('crop', .8), ('colour', .5), ('seed', 4)): (_, back), = move(kernel, sliders[name], value)
    assert back == start  # the same strengths, the same picture


def test_sliders_of_pruned_tokens(kernel):
    code = '''import torch
from effssl.data import photo
from effssl.encoders import encoder
from effssl.frameworks.simclr import SimCLR
from effssl.token_pictures import explore_pruned
from effssl.views import augmentations, make_views
torch.manual_seed(0)
net = encoder('vit_tiny_patch16_224', 64, patch_size=8, embed_dim=48, depth=3, num_heads=3)
views = make_views(photo('chelsea')[None, :, :300, :300], torch.arange(1), augmentations('simclr', 64))
explore_pruned(SimCLR(net), views, ['chelsea'], (1, 2))'''
    sliders, image, start = opened(kernel, code)
    assert set(sliders) == {'photo', 'keep rate', 'progress', 'block'}
    check_redraws(kernel, sliders, image, start, {'keep rate': .4, 'progress': 1.})


def test_sliders_of_similar_blocks(kernel):
    sliders, image, start = opened(kernel, 'from effssl.pictures import explore_blocks\nexplore_blocks()')
    assert set(sliders) == {'photo', 'threshold', 'block', 'search', 'colour', 'seed'}
    check_redraws(kernel, sliders, image, start, {'threshold': 15., 'colour': .1})
