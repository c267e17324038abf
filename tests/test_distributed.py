"Two real processes (gloo) against one with the joint batch; a run shared by two."
import socket
from contextlib import closing

import pytest, torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

import two
from effssl.frameworks.simclr import nt_xent
from effssl.masks import keeps_all, kept_batch_norm
from effssl.objectives import gather, world
from effssl.runs import run
from effssl.recipes import recipe

def free_port():
    with closing(socket.socket()) as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture(scope='module')
def pair(tmp_path_factory, request):
    "What both ranks found; where only single frameworks are asked for, in those."
    out, asked = tmp_path_factory.mktemp('two'), [i for i in request.session.items if 'pair' in i.fixturenames]
    some = [i.callspec.params['name'] for i in asked] if all(hasattr(i, 'callspec') for i in asked) else []
    mp.start_processes(two.one_of_two, (str(out), free_port(), some), nprocs=2, start_method='forkserver')
    return [torch.load(out/f'{rank}.pt', weights_only=False) for rank in (0, 1)]


def same(a, b): return torch.allclose(a.float(), b.float(), atol=2e-4, rtol=1e-3)

def near(a, b):
    "Of embeddings in a queue, some of which stand behind a ReLU that tipped."
    return (a - b).norm() <= 1e-2*b.norm()


def by_rank(v):
    "32 rows of a joint batch in the order in which two ranks bring them: rank 0 has every other image."
    return v.view(16, 2, *v.shape[1:]).transpose(0, 1).reshape(v.shape)


@pytest.mark.parametrize('name', two.CASES)
def test_two_processes_step_as_one(pair, name):
    "Joint are negatives, BatchNorm, centre, keys, queue, neighbours, Sinkhorn, covariance; of SimPrune nothing is."
    (grads, state, loss), (other_grads, other_state, _) = (found[name] for found, *_ in pair)
    joint_grads, joint_state, joint_loss = two.train(name)
    assert grads.keys() == joint_grads.keys()
    whole = sum(g.square().sum() for g in joint_grads.values()).sqrt()
    # fp32 sums in another order: 1e-4 of the gradient's length, 2e-3 where a ReLU tips the other way
    for n, g in joint_grads.items():
        assert (grads[n] - g).norm() <= 1e-2*whole, (n, (grads[n] - g).norm(), whole)
    assert all(torch.equal(v, other_state[k]) for k, v in state.items()), 'the ranks drift apart'
    for k, v in joint_state.items():
        batches = zip(state[k].split(32), v.split(32)) if k.endswith('queue') else [(state[k], v)]
        for s, j in batches:  # a queue that is not full has batches as drawn
            assert same(s, j) or k.endswith('queue') and (near(s, j) or near(s, by_rank(j))), k
    assert abs(loss - joint_loss) <= 1e-4*max(1., abs(joint_loss))
    assert whole > .05  # so the tolerance means something


def test_nothing_repeats_across_ranks_and_micro_batches(pair):
    logs = [row for _, log, *_ in pair for row in log]
    assert len(logs) == 2*2*3  # ranks × micro-batches × steps
    pixels = [p for row in logs for p in row['pixels']]
    assert len(set(pixels)) == len(pixels) == 2*96  # each of 96 images in its two views, once
    assert len({row['own'] for row in logs}) == len(logs)
    a, b = ([row['shared'] for row in log] for _, log, *_ in pair)
    assert a == b and len(set(a)) == 6  # what must agree agrees, and is new in every micro-batch


def test_ranks_agree_over_fifty_steps_of_accel(pair):
    (*_, depths, state), (*_, other_depths, other) = pair
    assert depths == other_depths and len(depths) == 51 and set(depths) == {1, 2, 3, 4}
    assert all(torch.equal(v, other[k]) for k, v in state.items())


def test_run_shared_by_two_processes(tmp_path):
    r = recipe(dataset='digits', image_size=16, encoder='timm:resnet10t',
               encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet', stem_width=8),
               framework_args=dict(width=32), epochs=2, batch_size=64, subset=256, test_subset=50, probe=None)
    shared, alone = run(r, tmp_path/'two', 'cpu', None, processes=2), run(r, tmp_path/'one', 'cpu', None)
    assert shared['id'] == alone['id'] and shared['status'] == 'complete' and len(shared['history']) == 3
    assert abs(shared['history'][-1]['loss'] - alone['history'][-1]['loss']) < 1e-3
    with pytest.raises(ValueError, match='3 processes'):
        run(recipe(r.__dict__, seed=1), tmp_path/'two', 'cpu', None, processes=3)


def data(): return torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(0))  # two views of eight samples


def head():
    torch.manual_seed(1)
    return nn.Linear(12, 6)


def worker(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{path}/store', rank=rank, world_size=2)
    net, x = head(), data()[:, 4*rank:4*rank + 4]
    assert world() == (rank, 2) and torch.equal(gather(x[0]), data()[0])
    loss = nt_xent(*(F.normalize(net(v), dim=1) for v in x), .2).mean()
    loss.backward()
    for p in net.parameters():  # what DDP does
        dist.all_reduce(p.grad)
        p.grad /= 2
    dist.all_reduce(loss.detach_())
    if rank == 0: torch.save((loss/2, [p.grad for p in net.parameters()]), f'{path}/out.pt')
    dist.destroy_process_group()


def test_simclr_with_gather(tmp_path):
    mp.start_processes(worker, (str(tmp_path),), nprocs=2, start_method='forkserver')
    loss, grads = torch.load(tmp_path/'out.pt')
    net = head()
    joint = nt_xent(*(F.normalize(net(v), dim=1) for v in data()), .2).mean()
    joint.backward()
    assert torch.allclose(loss, joint, atol=1e-5)
    for g, p in zip(grads, net.parameters()): assert torch.allclose(g, p.grad, atol=1e-5)


def masked_batch():
    g = torch.Generator().manual_seed(0)
    x, live = torch.randn(6, 3, 5, 5, generator=g), torch.rand(6, 3, 5, 5, generator=g) > .4
    live[:3, 1] = False  # a channel of which the first process keeps nothing
    return x.requires_grad_(), live, torch.randn(6, 3, 5, 5, generator=g), torch.zeros(3), torch.ones(3)


def kept_norm(rows):
    x, live, up, mean, var = masked_batch()
    y = kept_batch_norm(x[rows], live[rows], mean, var, training=True)
    (y*up[rows]).sum().backward()
    return [y.detach(), x.grad[rows], mean, var]


def norm_worker(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=f'file://{path}/norm', rank=rank, world_size=2)
    torch.save(kept_norm(slice(3*rank, 3*rank + 3)), f'{path}/{rank}.pt')
    keep = torch.ones(2, 1, 4, 4).bool()
    assert not keeps_all(keep if rank else ~keep) and keeps_all(keep)  # what one removes, both heed
    dist.destroy_process_group()


def test_norm_over_kept_positions_is_joint(tmp_path):
    mp.start_processes(norm_worker, (str(tmp_path),), nprocs=2, start_method='forkserver')
    (y, grad, *stats), (y2, grad2, *stats2) = (torch.load(tmp_path/f'{rank}.pt') for rank in (0, 1))
    joint = kept_norm(slice(None))
    for a, b in zip([torch.cat([y, y2]), torch.cat([grad, grad2]), *stats], joint):
        assert torch.allclose(a, b, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(stats, stats2))
