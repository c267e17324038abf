"Two small, real runs on embedded photographs through `50_pretrain`; prints one table and names what was written."
import sys, time
from pathlib import Path

from effssl.building import complete
from effssl.recipes import recipe
from effssl.records import load, summary
from effssl.sweep import run_notebook

OUT = Path('runs')/'demo'
RUNS = [
    dict(framework='simsiam', encoder='timm:resnet18',
         encoder_args={'channels': [32, 64, 128, 256], 'stem': 'imagenet'},
         framework_args={'width': 256}, lr=.2, epochs=8),
    dict(framework='simclr', encoder='vit_tiny_patch16_224',
         encoder_args={'patch_size': 4, 'embed_dim': 96, 'depth': 4, 'num_heads': 3},
         framework_args={'temperature': .2}, optimizer='adamw', lr=.002, weight_decay=.05, warmup_epochs=1, epochs=3)]
SHARED = dict(dataset='photos', batch_size=128, channels_last=True, subset=None)


def main():
    start, folders = time.time(), []
    for values in RUNS:
        print(f"\n== {values['framework']} with {values['encoder']} on embedded photographs ==", flush=True)
        folders.append(run_notebook(complete(recipe(SHARED, **values)), OUT, log=sys.stdout).parent)
    table = summary(load(f'{OUT}/*')[lambda d: d.id.isin([f.name for f in folders])])
    print('\nkNN: k=20, cosine, temperature 0.07; linear: logistic regression on standardised features; 720 test patches of 20 photographs.')
    print(table.T.to_string(header=False))
    print('\nwritten:', *(f'  {p}' for f in folders for p in sorted(f.iterdir()) if p.name[0] != '.'),
          f'{time.time() - start:.0f} s in all', sep='\n')


if __name__ == '__main__': main()
