"A GPU that is not there: CUDA tensors with shape, dtype and device but no data; whoever waits for one is found out. CPU tensors are real."
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import effssl

aten, HOME = torch.ops.aten, Path(effssl.__file__).parent
MODE = FakeTensorMode(allow_non_fake_inputs=True)


class HostWaits(RuntimeError):
    "The host needs a value that the device has yet to compute."


def caller() -> str:
    "The innermost function of the library that is running, as file:function."
    frame = sys._getframe()
    while frame and HOME not in Path(frame.f_code.co_filename).parents: frame = frame.f_back
    return f'{Path(frame.f_code.co_filename).relative_to(HOME)}:{frame.f_code.co_name}' if frame else 'elsewhere'


def is_mask(t): return isinstance(t, torch.Tensor) and t.dtype == torch.bool


def half(mask):
    "Places as `nonzero` gives them, as if every other element were True."
    return torch.zeros(mask.numel()//2, mask.ndim, dtype=torch.long, device=mask.device)


def answer(func, args, kwargs, true):
    "A function that gives what the host would read, if this operation makes it wait, and `true` where that is a truth value; else None."
    kind, to = func.overloadpacket, kwargs.get('device')
    if kind is aten._local_scalar_dense: return lambda: true if args[0].dtype == torch.bool else .5 if args[0].dtype.is_floating_point else 1
    if kind is aten.nonzero: return lambda: half(args[0])
    if kind in (aten.index, aten.index_put, aten.index_put_) and any(map(is_mask, args[1])):
        places = [p for t in args[1] for p in (half(t).unbind(1) if is_mask(t) else [t])]
        return lambda: func(args[0], places, *args[2:], **kwargs)
    if kind is aten._to_copy and to is not None and torch.device(to).type == 'cpu':
        def copied():
            with _disable_current_modes(): return torch.zeros(args[0].shape, dtype=kwargs.get('dtype') or args[0].dtype)
        return copied
    if kind is aten.copy_ and not isinstance(args[0], FakeTensor): return lambda: args[0]
    if kind is aten._to_copy and to is not None and torch.device(to).type == 'cuda' and not isinstance(args[0], FakeTensor) and not kwargs.get('non_blocking'):
        return lambda: func(*args, **kwargs)
    if kind is aten._linalg_check_errors: return lambda: None
    if kind in (aten.equal, aten.masked_select, aten._unique2, aten.bincount) or func is aten.repeat_interleave.Tensor:
        def unknown(): raise NotImplementedError(f'no answer to {func}')
        return unknown


class NoGPU(TorchDispatchMode):
    "Inside, `cuda` is a device without data; `allowed` are callers that may wait, `true` those that are told yes, and `waited` those that did."
    def __init__(self, allowed=(), true=()): super().__init__(); self.allowed, self.true, self.waited = allowed, true, set()
    def __enter__(self): MODE.__enter__(); return super().__enter__()
    def __exit__(self, *error): super().__exit__(*error); MODE.__exit__(*error)
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = any(isinstance(t, FakeTensor) for t in tree_leaves((args, kwargs))) or torch.device(kwargs.get('device') or 'cpu').type == 'cuda'
        if not there:
            with _disable_current_modes(): return func(*args, **kwargs)
        if answer(func, args, kwargs, False) is None: return func(*args, **kwargs)
        if (who := caller()) not in self.allowed: raise HostWaits(f'{func} in {who}')
        self.waited.add(who)
        return answer(func, args, kwargs, who in self.true)()


def to_gpu(module:nn.Module) -> nn.Module:
    "Parameters and buffers in place, shared ones once (`module.to` refuses)."
    memo = {}
    def moved(t):
        if id(t) not in memo:
            with MODE: new = torch.empty_like(t, device='cuda')
            memo[id(t)] = nn.Parameter(new, t.requires_grad) if isinstance(t, nn.Parameter) else new
        return memo[id(t)]
    for m in module.modules():
        for store in (m._parameters, m._buffers): store.update({k: moved(t) for k, t in store.items() if t is not None})
    return module


@contextmanager
def bf16():
    "Mixed precision on the GPU that is not there; `torch.autocast` switches itself off without one."
    torch.set_autocast_enabled('cuda', True); torch.set_autocast_dtype('cuda', torch.bfloat16); torch.autocast_increment_nesting()
    try: yield
    finally: torch.autocast_decrement_nesting(); torch.clear_autocast_cache(); torch.set_autocast_enabled('cuda', False)
