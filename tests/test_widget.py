"The sliders of `explore_views` in a real kernel, moved as a browser moves them: by a message to the widget's model."
import pytest
from jupyter_client.manager import start_new_kernel

from conftest import ROOT


@pytest.fixture(scope='module')
def kernel():
    manager, client = start_new_kernel(kernel_name='python3', cwd=str(ROOT/'nbs'/'tutorials'))
    yield client
    client.stop_channels(); manager.shutdown_kernel(now=True)


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
    return [(o['content']['comm_id'], bytes(o['buffers'][0])) for o in found if o['msg_type'] == 'comm_msg' and o['buffers']]


def test_sliders_redraw(kernel):
    found = answers(kernel, kernel.execute('from effssl.show import explore_views\nexplore_views()'))
    models = {m['content']['comm_id']: m for m in found if m['msg_type'] == 'comm_open'}
    states = {i: m['content']['data']['state'] for i, m in models.items()}
    assert [m['content']['data'].get('application/vnd.jupyter.widget-view+json') is not None for m in found if m['msg_type'] == 'execute_result'] == [True]
    slider = {s['description']: i for i, s in states.items() if s.get('description')}
    image = next(i for i, s in states.items() if s['_model_name'] == 'ImageModel')
    start = [bytes(m['buffers'][0]) for m in found if m['msg_type'] == 'comm_msg' and m['content']['comm_id'] == image][-1]
    assert start.startswith(b'\x89PNG')
    assert set(slider) == {'photo', 'crop', 'colour', 'seed'}

    drawn = [start]
    for name, value in (('crop', .2), ('colour', .9), ('seed', 7)):
        (target, png), = move(kernel, slider[name], value)
        assert target == image and png.startswith(b'\x89PNG') and png not in drawn, name
        drawn.append(png)
    for name, value in (('crop', .8), ('colour', .5), ('seed', 4)): (_, back), = move(kernel, slider[name], value)
    assert back == start                                    # the same strengths, the same picture


def test_sliders_of_pruned_tokens(kernel):
    code = '''import torch
from effssl.data import photo
from effssl.encoders import encoder
from effssl.frameworks.simclr import SimCLR
from effssl.techniques.simprune import explore_pruned
from effssl.views import augmentations, make_views
torch.manual_seed(0); net = encoder('vit_tiny_patch16_224', 64, patch_size=8, embed_dim=48, depth=3, num_heads=3)
views = make_views(photo('chelsea')[None, :, :300, :300], torch.arange(1), augmentations('simclr', 64))
explore_pruned(SimCLR(net), views, ['chelsea'], (1, 2))'''
    found = answers(kernel, kernel.execute(code))
    states = {m['content']['comm_id']: m['content']['data']['state'] for m in found if m['msg_type'] == 'comm_open'}
    slider = {s['description']: i for i, s in states.items() if s.get('description')}
    image = next(i for i, s in states.items() if s['_model_name'] == 'ImageModel')
    assert set(slider) == {'photo', 'keep rate', 'progress', 'block'}
    drawn = [[bytes(m['buffers'][0]) for m in found if m['msg_type'] == 'comm_msg' and m['content']['comm_id'] == image][-1]]
    for name, value in (('keep rate', .4), ('progress', 1.)):
        (target, png), = move(kernel, slider[name], value)
        assert target == image and png.startswith(b'\x89PNG') and png not in drawn, name
        drawn.append(png)


def test_sliders_of_similar_blocks(kernel):
    found = answers(kernel, kernel.execute('from effssl.matching import explore_blocks; explore_blocks()'))
    states = {m['content']['comm_id']: m['content']['data']['state'] for m in found if m['msg_type'] == 'comm_open'}
    slider = {s['description']: i for i, s in states.items() if s.get('description')}
    image = next(i for i, s in states.items() if s['_model_name'] == 'ImageModel')
    assert set(slider) == {'photo', 'threshold', 'block', 'search', 'colour', 'seed'}
    drawn = [[bytes(m['buffers'][0]) for m in found if m['msg_type'] == 'comm_msg' and m['content']['comm_id'] == image][-1]]
    for name, value in (('threshold', 15.), ('colour', .1)):
        (target, png), = move(kernel, slider[name], value)
        assert target == image and png.startswith(b'\x89PNG') and png not in drawn, name
        drawn.append(png)
