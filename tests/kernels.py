"Jupyter kernels forked from one process that has imported everything: real kernels, their start paid once."
import asyncio, multiprocessing, os, signal
from importlib.metadata import EntryPoint
from multiprocessing import forkserver
from pathlib import Path

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

PRELOAD = [  # none leaves a thread running
    'ipykernel.kernelapp', 'seaborn', 'umap', 'sklearn.datasets', 'skimage', 'kornia', 'torchvision', 'timm.optim',
    'lightly.loss', 'fastcore.test', 'effssl.tables', 'effssl.runs', 'effssl.frameworks.moco',
    'effssl.techniques.dual_gating', 'papermill']


def serve(command, cwd, env):
    "What the forked process does: be the kernel of this connection file."
    os.setsid()
    signal.set_wakeup_fd(-1)  # of the loop that asked for this kernel, if that is where it was forked
    asyncio.set_event_loop(asyncio.new_event_loop())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    import matplotlib, pandas
    from ipykernel.kernelapp import IPKernelApp
    # what both take from a kernel when it imports them
    matplotlib.rcParams['backend'] = 'module://matplotlib_inline.backend_inline'
    pandas.set_option('display.max_columns', 20)
    own = [f'--IPKernelApp.parent_handle={os.getppid()}', '--log-level=40']
    IPKernelApp.launch_instance([*dict.fromkeys([*command[command.index('-f'):], *own])])  # each option once


class Child:
    "A forked process, spoken to like a `subprocess.Popen`."
    stdin = stdout = stderr = None
    def __init__(self, way, *args):
        self.process = multiprocessing.get_context(way).Process(target=serve, args=args)
        self.process.start()
        self.pid = self.process.pid
    def poll(self): return self.process.exitcode
    def wait(self):
        self.process.join()
        return self.process.exitcode
    def send_signal(self, number): os.kill(self.pid, number)
    def kill(self): self.send_signal(signal.SIGKILL)
    def terminate(self): self.send_signal(signal.SIGTERM)


class Forked(LocalProvisioner):
    "Launches kernels by a fork of the process that has imported everything."
    way = 'forkserver'
    async def launch_kernel(self, cmd, **kwargs):
        self.process = Child(self.way, cmd, kwargs.get('cwd') or os.getcwd(), kwargs['env'])
        self.pid = self.pgid = self.process.pid
        return self.connection_info


class ForkedHere(Forked):
    "Launches kernels by a fork of the process that asks, which is itself a fork of that one."
    way = 'fork'


def launch_by(cls:str):
    "Let a class of this file launch the kernels that this process asks for from now on."
    factory = KernelProvisionerFactory.instance()
    factory.provisioners['forked'] = EntryPoint('forked', f'kernels:{cls}', factory.GROUP_NAME)
    factory.default_provisioner_name = 'forked'


def start():
    "Start the process that forks, and fork the kernels that this process and its children ask for from now on."
    before = os.environ.get('PYTHONPATH')
    here = str(Path(__file__).parent)  # where `forks` is
    os.environ['PYTHONPATH'] = os.pathsep.join([here, *filter(None, [before])])
    forkserver.set_forkserver_preload([*PRELOAD, 'forks'])
    forkserver.ensure_running()
    os.environ.pop('PYTHONPATH')
    if before is not None: os.environ['PYTHONPATH'] = before
    launch_by('Forked')
