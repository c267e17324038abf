"The suite itself: stale outputs are seen, and a change reaches what it can touch."
import base64, io, re

import pytest
from PIL import Image
from nbformat.v4 import new_output

from changed import Reach
from stored import difference


def printed(text): return [new_output('stream', name='stdout', text=text)]


@pytest.mark.parametrize('stored, given, stale', [
    ('kNN 31.2 %', 'kNN 31.2 %', False), ('kNN 31.2 %', 'kNN 31.3 %', False), ('kNN 31.2 %', 'kNN 35.2 %', True),
    ('1,234 MACs', '1,240 MACs', False), ('1,234 MACs', '1,334 MACs', True), ('simclr 3', 'simclr 3\nbyol 3', True),
    ('loss −0.5', 'loss 0.5', True), ('a   1\n', 'a 1', False), ('4e-14', '9e-14', True),
    ('1e-15', '9e-16', False), ('kNN .5', 'kNN .6', False), ('3 of 40', '4 of 40', True)])
def test_stale_outputs_are_seen(stored, given, stale):
    assert bool(difference(printed(stored), printed(given))) == stale
    assert not difference(printed(stored), printed(given), numbers=False) or 'byol' in given


def test_a_picture_that_is_another_is_seen():
    def picture(level):
        Image.new('L', (96, 48), level).save(f := io.BytesIO(), 'png')
        return [new_output('display_data', {'image/png': base64.b64encode(f.getvalue()).decode()})]
    assert not difference(picture(100), picture(102))
    assert 'grey levels' in difference(picture(100), picture(120)) and 'pictures' in difference(picture(100), [])


DASK, KILL, REFUSED = 'sweep.test_dask', 'faults.test_kill_and_resume', 'bad_input.test_refused_before_training'
REACHED = {  # files that changed: notebooks they touch, others that they do not, tests they touch, and do not
    'one technique': (
        {'nbs/techniques/21_simprune.ipynb', 'effssl/techniques/simprune.py'},
        ['techniques/21_simprune', 'experiments/53_simprune'], ['techniques/23_dual_gating', '06_train'],
        ['faults.test_resume_is_bit_equal[dino]', f'{REFUSED}[technique=simprune0]', 'together.test_alone[ViT-dino]',
         'together.test_in_pairs[ViT]'],
        [DASK, f'{REFUSED}[technique=accel1]', KILL, 'seam.test_one_step[dino]']),
    'one framework': (
        {'effssl/frameworks/byol.py'}, ['frameworks/12_byol'], ['frameworks/10_simclr', '00_data'],
        ['seam.test_one_step[byol]', 'together.test_alone[ViT-byol]'],
        ['seam.test_one_step[dino]', 'together.test_alone[ViT-dino]']),
    'the seam': (
        {'effssl/lockstep.py'}, ['techniques/23_dual_gating', '06_train', 'experiments/50_pretrain'],
        ['77_lookup', '78_recipes'], [DASK], []),
    'one grid': (
        {'nbs/experiments/grids/accel_table6.yml'}, [], ['techniques/21_simprune'],
        ['sweep.test_committed_grid[accel_table6]'], [KILL]),
    'nothing': (set(), [], ['techniques/21_simprune', '00_data'], [], [DASK])}


@pytest.mark.parametrize('files, notebooks, others, tests, not_tests', REACHED.values(), ids=REACHED)
def test_a_change_reaches_what_it_can_touch(files, notebooks, others, tests, not_tests):
    reach = Reach(files)
    def touched(test):
        file, function, id = re.fullmatch(r'(\w+)\.(\w+)(?:\[(.*)\])?', test).groups('')
        return reach.test(f'tests/test_{file}.py', function, id)
    assert [n for n in (*notebooks, *others) if reach.notebook(f'nbs/{n}.ipynb')] == notebooks
    assert [t for t in (*tests, *not_tests) if touched(t)] == tests
