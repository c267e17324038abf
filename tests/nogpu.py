"A GPU that is not there: CUDA tensors without data; whoever waits for one is found out. CPU tensors are real."
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
    "A function that gives what the host would read (`true` for a truth value) if it has to wait for this; else None."
    kind, to = func.overloadpacket, kwargs.get('device') and torch.device(kwargs['device']).type
    if kind is aten._local_scalar_dense:
        return lambda: true if args[0].dtype == torch.bool else .5 if args[0].dtype.is_floating_point else 1
    if kind is aten.nonzero: return lambda: half(args[0])
    if kind in (aten.index, aten.index_put, aten.index_put_) and any(map(is_mask, args[1])):
        places = [p for t in args[1] for p in (half(t).unbind(1) if is_mask(t) else [t])]
        return lambda: func(args[0], places, *args[2:], **kwargs)
    if kind is aten._to_copy and to == 'cpu':
        def copied():
            with _disable_current_modes(): return torch.zeros(args[0].shape, dtype=kwargs.get('dtype') or args[0].dtype)
        return copied
    if kind is aten.copy_ and not isinstance(args[0], FakeTensor): return lambda: args[0]
    if kind is aten._to_copy and to == 'cuda' and not isinstance(args[0], FakeTensor):
        return None if kwargs.get('non_blocking') else lambda: func(*args, **kwargs)
    if kind is aten._linalg_check_errors: return lambda: None
    if kind in (aten.equal, aten.masked_select, aten._unique2, aten.bincount) or func is aten.repeat_interleave.Tensor:
        def unknown(): raise NotImplementedError(f'no answer to {func}')
        return unknown


class NoGPU(TorchDispatchMode):
    "Inside, `cuda` has no data; `allowed` callers may wait, `true` ones are told yes, `waited` holds those that did."
    def __init__(self, allowed=(), true=()):
        super().__init__()
        self.allowed, self.true, self.waited = allowed, true, set()
    def __enter__(self):
        MODE.__enter__()
        return super().__enter__()
    def __exit__(self, *error):
        super().__exit__(*error)
        MODE.__exit__(*error)
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        fake = any(isinstance(t, FakeTensor) for t in tree_leaves((args, kwargs)))
        if not fake and torch.device(kwargs.get('device') or 'cpu').type != 'cuda':
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
    torch.set_autocast_enabled('cuda', True)
    torch.set_autocast_dtype('cuda', torch.bfloat16)
    torch.autocast_increment_nesting()
    try: yield
    finally:
        torch.autocast_decrement_nesting()
        torch.clear_autocast_cache()
        torch.set_autocast_enabled('cuda', False)
