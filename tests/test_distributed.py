"A real group of two processes: gradients through `gather` are those of the joint batch."
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from effssl.frameworks.simclr import nt_xent
from effssl.objectives import gather, world


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
    for p in net.parameters(): dist.all_reduce(p.grad); p.grad /= 2  # what DDP does
    dist.all_reduce(loss.detach_())
    if rank == 0: torch.save((loss/2, [p.grad for p in net.parameters()]), f'{path}/out.pt')
    dist.destroy_process_group()


def test_simclr_with_gather(tmp_path):
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    loss, grads = torch.load(tmp_path/'out.pt')
    net = head()
    joint = nt_xent(*(F.normalize(net(v), dim=1) for v in data()), .2).mean()
    joint.backward()
    assert torch.allclose(loss, joint, atol=1e-5)
    for g, p in zip(grads, net.parameters()): assert torch.allclose(g, p.grad, atol=1e-5)
