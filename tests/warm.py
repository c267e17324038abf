"What the notebooks import and compile, for a process to be forked from: no thread is left running in it."
import fastcore.test, ipykernel.kernelapp, kornia, lightly.loss, matplotlib_inline.backend_inline, seaborn, skimage, sklearn.datasets, timm.optim, torch, torchvision  # noqa: F401

import effssl.tables
from effssl.recipes import names
from effssl.show import umap_plane

names('framework'), names('technique')
umap_plane(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)))  # ten seconds of numba's compiler
