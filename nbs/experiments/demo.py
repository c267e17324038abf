"Two small, real runs on embedded photographs through `50_pretrain`, dense and for less; prints one table, and what next."
import sys, time
from dataclasses import replace
from pathlib import Path

from effssl.building import complete
from effssl.recipes import recipe
from effssl.records import load, read_json, summary
from effssl.sweep import run_notebook

OUT = Path('runs')/'demo'
DENSE = recipe(dataset='photos', framework='simclr', framework_args={'temperature': .2}, encoder='timm:resnet10t',
               encoder_args={'channels': [32, 64, 128, 256], 'stem': 'imagenet'}, image_size=32, optimizer='adamw',
               lr=.003, weight_decay=.05, batch_size=128, epochs=4, channels_last=True)
RUNS = {'dense': DENSE, 'growing views': replace(DENSE, technique='resolution')}


def main():
    start, folders = time.time(), {}
    for name, r in RUNS.items():
        print(f'\n== {name}: {r.framework} with {r.encoder} on embedded photographs ==', flush=True)
        folders[name] = run_notebook(complete(r), OUT, log=sys.stdout).parent
    records = load(f'{OUT}/*').set_index('id').loc[[f.name for f in folders.values()]].reset_index()
    print('\nkNN: k=20, cosine, temperature 0.07; linear: logistic regression on standardised features; 720 test patches of 20 '
          'photographs.')
    print(summary(records).set_axis([*RUNS]).T.to_string())
    dense, less = (read_json(folder/'run.json') for folder in folders.values())
    share = {k: less['cost'][k]/dense['cost'][k] for k in ('flops_per_image', 'seconds_per_step')}
    print(f"\nViews that begin small: kNN {less['scores']['knn20']['accuracy']:.1f} % beside {dense['scores']['knn20']['accuracy']:.1f} %, "
          f"for {share['flops_per_image']:.0%} of the FLOPs and {share['seconds_per_step']:.0%} of the time of a step.\n"
          f"Pictures: {', '.join(f'{folder}/*.png' for folder in folders.values())}. Next: python3 dev.py lab\n{time.time() - start:.0f} s in all")


if __name__ == '__main__': main()
