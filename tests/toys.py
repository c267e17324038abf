"Toy techniques and an encoder, imported by name: 'toys.RandomTokens'."
import torch
from torch import nn

from effssl.lockstep import Step, Technique, steps


class RandomTokens(Technique):
    "Keep a random share of a ViT's patch tokens, the same in all views."
    def __init__(self, share=.5):
        super().__init__()
        if not 0 < share <= 1: raise ValueError(f'share {share} must be in (0, 1]')
        self.share = share
    def setup(self, framework):
        if not hasattr(framework.encoder, 'blocks'):
            raise ValueError(f'RandomTokens drops tokens of a ViT; a {type(framework.encoder).__name__} has none')
    def between(self, step, walk):
        if step.name != 'embed': return
        n = walk.branches[0].x.shape[1] - 1
        keep = torch.randperm(n, generator=walk.generator('tokens'))[:round(self.share*n)].sort().values
        for b in walk.branches: b.kept, b.x = keep.expand(len(b.x), -1), torch.cat([b.x[:, :1], b.x[:, 1 + keep]], 1)


class RandomDepth(Technique):
    "End the walk after a randomly drawn ResNet stage; its mean is the embedding of that step."
    def before(self, walk):
        stage = torch.randint(1, 5, (), generator=walk.generator('depth')).item()
        walk.until = [s.name for s in steps(walk.branches[0].encoder) if s.stage == stage][-1]
    def loss(self, framework_loss, walk):
        a, b = (x.x.mean((2, 3)) for x in walk.branches)
        return (a - b).square().mean()


class Plain(nn.Module):
    "A user's own encoder: two convolutions."
    num_features = 16
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1)
    def forward(self, x): return self.b(self.a(x).relu()).mean((2, 3))


@steps.register
def plain_steps(encoder: Plain):
    def a(b): b.x = encoder.a(b.x).relu()
    def b_(b): b.x = encoder.b(b.x).mean((2, 3))
    return [Step('a', a, 1, encoder.a), Step('b', b_, 2, encoder.b)]


class NoSteps(nn.Module):
    "An encoder that nobody registered."
    num_features = 3
    def forward(self, x): return x.mean((2, 3))
