"The suite itself: stale outputs are seen, and a change reaches what it can touch."
import pytest
from nbformat.v4 import new_output

from changed import Reach
from stored import difference


def printed(text): return [new_output('stream', name='stdout', text=text)]


@pytest.mark.parametrize('stored, given, stale', [
    ('kNN 31.2 %', 'kNN 31.2 %', False), ('kNN 31.2 %', 'kNN 31.3 %', False), ('kNN 31.2 %', 'kNN 35.2 %', True), ('1,234 MACs', '1,240 MACs', False),
    ('1,234 MACs', '1,334 MACs', True), ('simclr 3', 'simclr 3\nbyol 3', True), ('loss −0.5', 'loss 0.5', True), ('a   1\n', 'a 1', False), ('4e-14', '9e-14', True)])
def test_stale_outputs_are_seen(stored, given, stale):
    assert bool(difference(printed(stored), printed(given))) == stale
    assert not difference(printed(stored), printed(given), numbers=False) or 'byol' in given


def test_a_picture_that_is_another_is_seen():
    import base64, io
    from PIL import Image
    def picture(level):
        Image.new('L', (96, 48), level).save(f := io.BytesIO(), 'png')
        return [new_output('display_data', {'image/png': base64.b64encode(f.getvalue()).decode()})]
    assert not difference(picture(100), picture(102)) and 'grey levels' in difference(picture(100), picture(120)) and 'pictures' in difference(picture(100), [])


@pytest.mark.parametrize('files, notebooks, others, tests, not_tests', [
    ({'nbs/techniques/21_simprune.ipynb', 'effssl/techniques/simprune.py'}, ['techniques/21_simprune', 'experiments/53_simprune'],
     ['techniques/23_dual_gating', '06_train'], [('test_faults.py', 'test_resume_is_bit_equal', 'dino'), ('test_bad_input.py', 'test_refused_before_training', 'technique=simprune0')],
     [('test_sweep.py', 'test_dask', ''), ('test_bad_input.py', 'test_refused_before_training', 'technique=accel1'), ('test_faults.py', 'test_kill_and_resume', '')]),
    ({'effssl/lockstep.py'}, ['techniques/23_dual_gating', '06_train', 'experiments/50_pretrain'], ['17_lookup', '18_recipes'], [('test_sweep.py', 'test_dask', '')], []),
    ({'nbs/experiments/grids/accel_table6.yml'}, [], ['techniques/21_simprune'], [('test_sweep.py', 'test_committed_grid', 'accel_table6')],
     [('test_faults.py', 'test_kill_and_resume', '')]),
    (set(), [], ['techniques/21_simprune', '00_data'], [], [('test_sweep.py', 'test_dask', '')])],
    ids=['one technique', 'the seam', 'one grid', 'nothing'])
def test_a_change_reaches_what_it_can_touch(files, notebooks, others, tests, not_tests):
    reach = Reach(files)
    for name in notebooks: assert reach.notebook(f'nbs/{name}.ipynb'), name
    for name in others: assert not reach.notebook(f'nbs/{name}.ipynb'), name
    for file, function, id in tests: assert reach.test(f'tests/{file}', function, id), function
    for file, function, id in not_tests: assert not reach.test(f'tests/{file}', function, id), (function, id)
