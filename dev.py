#!/usr/bin/env python3
"""One command for each thing one does with a checkout of effssl; standard library only.

    python3 dev.py install            make .venv with everything (or use an activated environment that has effssl)
    python3 dev.py demo               train, evaluate, cost and picture two small runs on embedded data
    python3 dev.py test [--slow]      every check: notebooks, export, cleanliness, tests
    python3 dev.py test --changed     those that the difference from main (or a commit) can touch
    python3 dev.py lab                open the notebooks in JupyterLab, the first tutorial first; its options follow
    python3 dev.py notebooks [--only 01_views]   execute notebooks in place, redraw figures, README, clean
    python3 dev.py docs               build the site into _docs/html
    python3 dev.py changed effssl.train --numbers same --why '…'
                                      say what a change of modules did to the numbers of committed records
"""
import argparse, hashlib, os, shutil, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT/'.venv'
STAMP = VENV/'.effssl-installed'
QUIET = {'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}  # where several processes share the cores
COMPILE = {'uv': '--compile-bytecode', 'pip': '--compile'}  # else every start of Python compiles PyTorch anew


def say(text): print(f'[dev] {text}', flush=True)


def call(*cmd, **kw):
    "Run a command in the repository; stop with its exit code if it fails."
    code = subprocess.run([str(c) for c in cmd], cwd=ROOT, **kw).returncode
    if code: sys.exit(code)


def wanted():
    "What an installation depends on, as a hash."
    files = b''.join((ROOT/f).read_bytes() for f in ('settings.ini', 'setup.py', 'pyproject.toml'))
    return hashlib.sha256(files + str(COMPILE).encode()).hexdigest()


def has_effssl(python):
    "Whether this Python runs this checkout with its development tools."
    code = f"""import effssl, nbdev, pytest, xdist, ruff, papermill, myst_nb, furo, pathlib
assert pathlib.Path(effssl.__file__).parent.parent == pathlib.Path({str(ROOT)!r})"""
    return subprocess.run([str(python), '-c', code], cwd=ROOT.parent, capture_output=True).returncode == 0


def install():
    "The Python to use: the activated environment's if it has effssl, else `.venv`'s, made when settings changed."
    if sys.version_info < (3, 11): sys.exit(f'effssl needs Python 3.11 or newer; this is {sys.version.split()[0]}')
    active = os.environ.get('VIRTUAL_ENV') or os.environ.get('CONDA_PREFIX')
    if active and Path(active) != VENV and has_effssl(Path(active)/'bin/python'): return Path(active)/'bin/python'
    python = VENV/'bin/python'
    if STAMP.exists() and STAMP.read_text() == wanted(): return python
    if not python.exists(): make_venv()
    uv = shutil.which('uv') or VENV/'bin/uv'
    if not Path(uv).exists(): subprocess.run([python, '-m', 'pip', 'install', '-q', 'uv'], cwd=ROOT)
    env = {k: v for k, v in os.environ.items() if k not in ('VIRTUAL_ENV', 'CONDA_PREFIX')}
    say('installing effssl and its tools into .venv: 7 GB, most of it PyTorch, and some minutes; once')
    if Path(uv).exists(): call(uv, 'pip', 'install', '-q', COMPILE['uv'], '--python', python, '-e', '.[dev]', env=env)
    else: call(python, '-m', 'pip', 'install', '-q', COMPILE['pip'], '-e', '.[dev]', env=env)
    STAMP.write_text(wanted())
    return python


def make_venv():
    "An empty `.venv`."
    uv = shutil.which('uv')
    if uv: return call(uv, 'venv', '-q', '--seed', '--python', sys.executable, VENV)
    if subprocess.run([sys.executable, '-m', 'venv', VENV], cwd=ROOT).returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit('Python cannot make a virtual environment: on Debian or Ubuntu, apt-get install python3-venv')


def environment(python):
    "The environment for what we start: our own bin first, quiet, and free to write byte code."
    kept = {k: v for k, v in os.environ.items() if k != 'PYTHONDONTWRITEBYTECODE'}
    path = f'{python.parent}{os.pathsep}{os.environ["PATH"]}'
    return {**kept, 'PATH': path, 'VIRTUAL_ENV': str(python.parent.parent), 'PYTHONUNBUFFERED': '1',
            'TOKENIZERS_PARALLELISM': 'false'}


def demo(python, args): call(python, ROOT/'nbs/experiments/demo.py', env=environment(python))


def differs(commit):
    "Whether anything has changed since a commit; what has is tests/changed.py's to say."
    sys.path.append(str(ROOT/'tests'))
    from changed import changed_files
    try: return bool(changed_files(commit))
    except subprocess.CalledProcessError as e: sys.exit(f'git cannot compare with {commit!r}: {e.stderr.strip()}')


def test(python, args):
    "As many tests at a time as there are cores, each on one thread."
    if args.changed and not differs(args.changed): return say(f'nothing has changed since {args.changed}')
    cores = min(4, len(os.sched_getaffinity(0)))
    chosen = [*(['--slow'] if args.slow else []), *([f'--changed={args.changed}'] if args.changed else [])]
    spread = [f'--numprocesses={cores}', '--dist=loadscope', '--no-loadscope-reorder']
    command = [python, '-m', 'pytest', *spread, *chosen, *args.rest]
    code = subprocess.run([str(c) for c in command], cwd=ROOT, env={**QUIET, **environment(python)}).returncode
    sys.exit(0 if args.changed and code == 5 else code)  # 5: nothing to test


def settle_notebooks(python):
    "Tell this checkout's git that a notebook which was only run is unchanged: tests/settle.py."
    if not shutil.which('git'): return
    value = f"'{python}' tests/settle.py %f"
    subprocess.run(['git', 'config', 'filter.effssl.clean', value], cwd=ROOT, capture_output=True)


def lab(python, args):
    settle_notebooks(python)
    root = ['--allow-root'] if os.geteuid() == 0 else []
    first = '--LabApp.default_url=/lab/tree/tutorials/40_first_run.ipynb'
    own = [str(ROOT/'tests'), *filter(None, [os.environ.get('JUPYTER_CONFIG_PATH')])]
    env = {**environment(python), 'JUPYTER_CONFIG_PATH': os.pathsep.join(own)}
    call(python, '-m', 'jupyter', 'lab', ROOT/'nbs', first, *root, *args.rest, env=env)


def notebooks(python, args):
    "Execute in place, each on one thread as the tests do; then export, README and clean."
    env = {**QUIET, **environment(python)}
    call(python.parent/'nbdev_export', env=env)
    call(python, ROOT/'tests/execute.py', *(args.only or []), env=env)
    call(python.parent/'nbdev_clean', env=env)
    call(python, ROOT/'tests/readme.py', env=env)


def docs(python, args):
    "The site, from scratch, so that nothing of a removed notebook stays; a warning is an error."
    shutil.rmtree(ROOT/'_docs', ignore_errors=True)
    strict = ['-q', '-W', '--keep-going']
    call(python, '-m', 'sphinx', *strict, '-c', 'docs', '-d', '_docs/doctrees', 'nbs', '_docs/html',
         env=environment(python))
    say(f"the site: {ROOT/'_docs/html/index.html'}")


def changed(python, args):
    "Write into results/changes.yml what a change of modules did to numbers."
    code = """import sys; from effssl.provenance import say_changed
try: say_changed(sys.argv[3:], *sys.argv[1:3])
except ValueError as e: sys.exit(str(e))"""
    call(python, '-c', code, args.numbers, args.why, *args.rest, env=environment(python))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('verb', choices=['install', 'demo', 'test', 'lab', 'notebooks', 'docs', 'changed'])
    p.add_argument('--slow', action='store_true', help='test: the minutes-long tests too')
    p.add_argument('--changed', nargs='?', const='main', metavar='COMMIT',
                   help='test: what the difference from a commit (main) can touch')
    p.add_argument('--only', nargs='*', help='notebooks: only those whose path contains one of these')
    p.add_argument('--numbers', choices=['same', 'other'], help='changed: whether they stay as they are')
    p.add_argument('--why', default='', help='changed: a sentence')
    args, args.rest = p.parse_known_args()
    python = install()
    if args.verb == 'install': return say(f'ready: {python}')
    globals()[args.verb](python, args)


if __name__ == '__main__': main()
