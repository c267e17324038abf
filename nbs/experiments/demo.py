"Two small, real runs on embedded photographs through `50_pretrain`; prints one table and names what was written."
import os, sys, time
from pathlib import Path

import papermill
from effssl.runs import complete, load, recipe, run_id, summary

HERE, OUT = Path(__file__).parent, Path('runs')/'demo'
RUNS = [
    dict(framework='simsiam', encoder='timm:resnet18', encoder_args={'channels': [32, 64, 128, 256], 'stem': 'imagenet'},
         framework_args={'width': 256}, lr=.2, epochs=8),
    dict(framework='simclr', encoder='vit_tiny_patch16_224', encoder_args={'patch_size': 4, 'embed_dim': 96, 'depth': 4, 'num_heads': 3},
         framework_args={'temperature': .2}, optimizer='adamw', lr=.002, weight_decay=.05, warmup_epochs=1, epochs=3)]
SHARED = dict(dataset='photos', batch_size=128, channels_last=True, subset=None)


def execute(values):
    "Run the notebook with these parameters; the executed copy goes into the run's folder, under its final name when it is done."
    folder = OUT/run_id(complete(recipe(values)))
    folder.mkdir(parents=True, exist_ok=True)
    part = folder/'run.part.ipynb'
    papermill.execute_notebook(HERE/'50_pretrain.ipynb', part, {**values, 'out': str(OUT)}, kernel_name='python3', progress_bar=False,
                               stdout_file=sys.stdout, stderr_file=sys.stderr, request_save_on_cell_execute=False)
    os.replace(part, folder/'run.ipynb')
    return folder


def main():
    start, folders = time.time(), []
    for values in RUNS:
        print(f"\n== {values['framework']} with {values['encoder']} on embedded photographs ==", flush=True)
        folders.append(execute({**SHARED, **values}))
    table = summary(load(f'{OUT}/*')[lambda d: d.id.isin([f.name for f in folders])])
    print('\nkNN: k=20, cosine, temperature 0.07; linear: SGD, 100 epochs, offline, last epoch; 720 test patches of 20 photographs.')
    print(table.T.to_string(header=False))
    print('\nwritten:', *(f'  {p}' for f in folders for p in sorted(f.iterdir())), f'{time.time() - start:.0f} s in all', sep='\n')


if __name__ == '__main__': main()
