"Data from folders, zips and workers; CIFAR-10 where it is at hand."
import os, pickle, subprocess, sys, tarfile, zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image

from effssl.building import complete
from effssl.data import data_home, load, look, spelled, take
from effssl.evaluate import evaluate
from effssl.recipes import recipe, run_id
from effssl.runs import load_data, run
from effssl.sweep import count
import effssl.data
from effssl.train import loader
from effssl.views import make_views, Aug


@pytest.fixture
def tree(tmp_path):
    for split, n in (('train', 6), ('val', 3)):
        for c in ('a', 'b'):
            (tmp_path/'set'/split/c).mkdir(parents=True)
            for i in range(n):
                Image.new('RGB', (40 + i, 30), (10*i, 100, 200*(c == 'a'))).save(tmp_path/'set'/split/c/f'{i}.jpg')
    return tmp_path/'set'


def test_folder_and_zip_agree(tree, tmp_path):
    with zipfile.ZipFile(tmp_path/'set.zip', 'w') as z:
        for p in sorted(tree.rglob('*.jpg')): z.write(p, p.relative_to(tree))
    a, b = load(f'folder:{tree}', 'train', 32), load(f'zip:{tmp_path/"set.zip"}', 'train', 32)
    assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.aspects, b.aspects)
    assert len(load(f'folder:{tree}', 'test', 32)) == 6 and a.classes == ['a', 'b']


def test_a_tar_is_read_as_its_folder(tree, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    with tarfile.open(tmp_path/'set.tar', 'w') as tar: tar.add(tree, '.')
    for split in ('train', 'test'):
        a, b = load(str(tree), split, 32), load(str(tmp_path/'set.tar'), split, 32)
        assert torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and torch.equal(a.aspects, b.aspects)
        assert a.names == b.names and a.classes == b.classes
    assert effssl.data.listing(str(tree)) == effssl.data.listing(str(tmp_path/'set.tar'))


@pytest.fixture
def shards(tmp_path, monkeypatch):
    "48 images, told apart by their red, in six shards by WebDataset's own writer, and in a folder; two to test on."
    import webdataset as wds
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path/'cache'))
    monkeypatch.setattr(effssl.data, 'MEMORY', 0)  # not kept in memory
    (tmp_path/'shards').mkdir()
    for split, n, of in (('train', 48, 9), ('val', 2, 9)):
        with wds.ShardWriter(str(tmp_path/'shards'/f'set-{split}-%03d.tar'), maxcount=of, verbose=0) as sink:
            for i in range(n):
                c, img = i*12//n, Image.new('RGB', (6, 4), (5*i, 100, 200))
                (tmp_path/f'folder/{split}/{c:02}').mkdir(parents=True, exist_ok=True)
                kind = ('png', 'bmp')[i%2]
                img.save(file := tmp_path/f'folder/{split}/{c:02}/{i:03}.{kind}')
                sink.write({'__key__': f'{i:03}', kind: file.read_bytes(), 'cls': c, 'json': {'i': i}})
    return tmp_path


def test_shards_are_what_their_writer_reads(shards):
    import webdataset as wds
    ours, folder = load(f'shards:{shards}/shards', 'train', 4), load(f'folder:{shards}/folder', 'train', 4)
    assert len(list((shards/'shards').glob('*train*'))) == 6 and ours.names[0] == 'train/00/set-train-000.tar:000.png'
    assert ours.classes == folder.classes and torch.equal(ours.labels, folder.labels)
    theirs = wds.WebDataset(str(shards/'shards/set-train-{000..005}.tar'), shardshuffle=False)
    found = {Path(s['__url__']).name + ':' + s['__key__']: int(s['cls']) for s in theirs}
    names = [n.rpartition('/')[2].partition('.tar:') for n in ours.names]
    assert {a + b + c.partition('.')[0]: int(ours.classes[y]) for (a, b, c), y in zip(names, ours.labels)} == found
    assert pickle.loads(pickle.dumps(ours.images))(5).getpixel((0, 0)) == (25, 100, 200)
    part = load(f'{shards}/shards/set-train-{{001..002}}.tar', 'pretrain', 4)
    assert len(part) == 18 and part.read(0)[0][0, 0, 0] == 45
    assert spelled(f'shards:{shards}/shards/') == spelled(f'{shards}/shards') == f'folder:{shards}/shards'
    assert ' 2 to test on' in str(look(f'{shards}/shards'))


def test_each_image_of_shards_once_an_epoch(shards):
    "Two ranks with two workers each: none lost, none twice, in batches that are a folder's."
    folder, ours = load(f'{shards}/folder', 'train', 4), load(f'{shards}/shards', 'train', 4)
    ranks = [[loader(s, 4, 3, rank, 2, workers) for s, workers in ((folder, 0), (ours, 2))] for rank in (0, 1)]
    orders = []
    for epoch in (0, 1):
        seen = []
        for loaders in ranks:
            for each in loaders: each.sampler.set_epoch(epoch)
            for (x, y, i, a), (u, v, j, b) in zip(*loaders, strict=True):
                assert torch.equal(i, j) and torch.equal(x, u) and torch.equal(y, v) and torch.equal(a, b)
                seen += u[:, 0, 0, 0].tolist()
        assert sorted(seen) == [5*i for i in range(48)]
        orders.append(seen)
    assert orders[0] != orders[1]


def test_what_cannot_be_read_of_a_shard_is_named(shards):
    path = shards/'shards'/'set-train-002.tar'
    with tarfile.open(path) as tar: begins = tar.getmember('020.png').offset_data
    with open(path, 'r+b') as f:
        f.seek(begins)
        f.write(b'broken!!')
    with pytest.raises(ValueError, match="image 'train/05/set-train-002.tar:020.png'"):
        load(f'{shards}/shards', 'train', 4)
    assert len(load(f'{shards}/shards', 'train', 4, skip_bad=True)) == 47
    with pytest.raises(FileNotFoundError, match='set-train-006.tar'):
        look(f'shards:{shards}/shards/set-train-{{000..006}}.tar')
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match='set-train-002.tar.* cut off|set-train-002.tar.* no whole tar'):
        look(f'{shards}/shards')


def test_workers_decode_what_memory_holds(tree, monkeypatch):
    whole = load(f'folder:{tree}', 'train', 32)
    monkeypatch.setattr(effssl.data, 'MEMORY', 0)
    lazy = load(f'folder:{tree}', 'train', 32)
    assert whole.in_memory and not lazy.in_memory
    for (x, y, i, a), (u, v, j, b) in zip(loader(whole, 4, seed=3), loader(lazy, 4, seed=3, workers=2)):
        assert torch.equal(i, j) and torch.equal(x, u) and torch.equal(y, v) and torch.equal(a, b)
    part = take(lazy, 5, 1)
    assert len(part) == 5 and torch.equal(part[2][0], take(whole, 5, 1)[2][0])


def test_unsplit_tree_and_bad_files(tmp_path):
    for c in 'xy':
        (tmp_path/'pool'/c).mkdir(parents=True)
        for i in range(10): Image.new('RGB', (8, 8)).save(tmp_path/f'pool/{c}/{i}.png')
    a, b = load(f'folder:{tmp_path/"pool"}', 'train', 8), load(f'folder:{tmp_path/"pool"}', 'test', 8)
    assert (len(a), len(b)) == (16, 4)
    (tmp_path/'pool/x/3.png').write_bytes(b'broken')
    with pytest.raises(ValueError, match='x/3.png'): load(f'folder:{tmp_path/"pool"}', 'train', 8)
    (tmp_path/'empty').mkdir()
    with pytest.raises(ValueError, match='no image'): load(f'folder:{tmp_path/"empty"}')


def test_a_subset_alone_is_decoded(tree, monkeypatch):
    seen = []
    read = effssl.data.Images.read
    monkeypatch.setattr(effssl.data.Images, 'read', lambda self, i: seen.append(i) or read(self, i))
    part = load(str(tree), 'train', 32, n=5, seed=1)
    assert len(seen) == 5 and torch.equal(part.images, take(load(str(tree), 'train', 32), 5, 1).images)


def test_trained_on_without_labels(tree, tmp_path):
    "`unlabeled/` beside any tree; a tree of one class, where nothing is put aside."
    (tree/'unlabeled').mkdir()
    for i in range(4): Image.new('RGB', (8, 8)).save(tree/f'unlabeled/{i}.png')
    r = recipe(dataset=str(tree), image_size=32, batch_size=4, k=3)
    images, sets = load_data(complete(r))
    assert len(images) == 4 == count(str(tree)) and images.labels.tolist() == [-1]*4
    assert len(sets.train) == 12 and len(sets.test) == 6
    alone = str(tree/'train/a')
    images, sets = load_data(complete(replace(r, dataset=alone)))
    assert images is sets.train and len(images) == 6 == count(alone)
    assert evaluate(None, sets, r) == {}
    with pytest.raises(ValueError, match='the images have no labels'): load(alone, 'test')


def test_a_path_is_spelled_one_way(tree):
    kw = dict(image_size=32, batch_size=4, k=3)
    ids = {run_id(complete(recipe(dataset=d, **kw))) for d in (str(tree), f'{tree}/', f'folder:{tree}')}
    assert len(ids) == 1


def test_images_of_a_function(tmp_path, monkeypatch):
    (tmp_path/'ours.py').write_text("""from effssl.data import load
def digits(): return {'train': load('digits', 'train', 16), 'validation': load('digits', 'test', 16)}
""")
    monkeypatch.syspath_prepend(tmp_path)
    train, test = (load('ours.digits', s, 32) for s in ('train', 'test'))
    assert (len(train), len(test), test.size, count('ours.digits')) == (1347, 450, 16, 1347)


def test_a_run_knows_its_images(tree, tmp_path):
    "Finished or stopped, it is not given for other images than it was begun with."
    r = recipe(dataset=str(tree), image_size=16, encoder='timm:resnet10t', epochs=1, batch_size=8, k=3, probe=None,
               encoder_args=dict(channels=[8, 16, 32, 64], stem='imagenet'), framework_args=dict(width=32))
    first = run(r, tmp_path/'runs', progress=None)
    assert run(r, tmp_path/'runs', progress=None) == first
    shown = next(p for p in tree.rglob('*') if p.suffix in ('.png', '.jpg'))
    shown.with_stem('another').write_bytes(shown.read_bytes())
    with pytest.raises(ValueError, match='image files .* begun with: delete that folder'):
        run(r, tmp_path/'runs', progress=None)


def test_twelve_bits_and_columns(tmp_path):
    "What a microscope writes into 16 bits is not dark; a column called label is the label; an image keeps its number."
    grey = np.linspace(0, 4095, 64*64).reshape(64, 64).astype(np.uint16)
    for c in 'ab':
        (tmp_path/c).mkdir()
        Image.fromarray(grey).save(tmp_path/c/'x.png')
    assert load(str(tmp_path), 'train', 64).images.float().mean() > 100
    class Columns(list):  # as a data set of Hugging Face
        features = {'image': type('Image', (), {})(), 'coarse': type('ClassLabel', (), dict(names=['x']))(),
                    'label': type('ClassLabel', (), dict(names=['a', 'b']))()}
        def __getitem__(self, i): return super().__getitem__(i) if isinstance(i, int) else [row[i] for row in self]
    rows = Columns(dict(image=Image.new('RGB', (8, 8)), coarse=0, label=i%2) for i in range(20))
    found = effssl.data.from_python(rows)
    assert found.classes == ['a', 'b'] and found.labels.tolist() == [0, 1]*10 and found.names[3] == '3'


def test_views_do_not_depend_on_the_loader():
    ds = load('digits', 'train', 16)
    seen = {}
    for size in (32, 50):
        for x, _, i, a in loader(ds, size, seed=1):
            for k, v in zip(i.tolist(), make_views(x, i, [Aug(16)], 7, 2, a)[0].x):
                assert torch.equal(seen.setdefault(k, v), v)
    assert len(seen) > 1300


@pytest.mark.skipif(not (os.environ.get('EFFSSL_DATA') and (data_home()/'cifar10.zip').exists()),
                    reason='CIFAR-10 is not under EFFSSL_DATA')
def test_cifar10():
    ds = load('cifar10', 'test')
    assert len(ds) == 10_000 and ds.size == 32 and len(ds.classes) == 10 and ds.labels.bincount().tolist() == [1000]*10


PEAK = """
import sys, threading, time, psutil, effssl.data
from effssl.data import load
from effssl.encoders import encoder
from effssl.evaluate import features
me, most = psutil.Process(), 0
def now(): # bytes of this process and its workers, shared ones once
    found = 0
    for p in (me, *me.children(recursive=True)):
        try: found += p.memory_full_info().pss
        except psutil.Error: pass  # gone
    return found
def watch():
    global most
    while True:
        most = max(most, now())
        time.sleep(1)
effssl.data.MEMORY = 0  # decoded when asked for, as a set that is too large
before = now()
threading.Thread(target=watch, daemon=True).start()
features(encoder('resnet18', 224), load(sys.argv[1], 'train', 256, 100), 224)
few = load(sys.argv[1], 'train', 256)
narrow = encoder('timm:resnet10t', 224, channels=[8, 8, 8, 8], stem='imagenet')
for net in (narrow, None): x, _ = features(net, few, 224)
print(len(x), (most - before)/2**30)
"""


@pytest.mark.slow
def test_features_in_bounded_memory(tmp_path):
    "Features of 20,000 images of 224 px, and their pixels, take less than 2 GiB beside libraries, workers included."
    for i in range(100):
        (tmp_path/str(i%2)).mkdir(exist_ok=True)
        first = tmp_path/str(i%2)/f'{i}.jpg'
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (240, 320, 3), np.uint8)).save(first)
        for k in range(1, 250): os.link(first, tmp_path/str(i%2)/f'{i}-{k}.jpg')
    done = subprocess.run([sys.executable, '-c', PEAK, tmp_path], capture_output=True, text=True, check=True)
    n, gigabytes = map(float, done.stdout.split())
    print(done.stdout)
    assert n == 20_000 and .1 < gigabytes < 2, done.stdout
