"Jupyter kernels forked from one process that has imported everything: real kernels, their start paid once."
import multiprocessing, os, signal
from importlib.metadata import EntryPoint
from multiprocessing import forkserver

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

PRELOAD = [  # none leaves a thread running
    'ipykernel.kernelapp', 'seaborn', 'umap', 'sklearn.datasets', 'skimage', 'kornia', 'torchvision', 'timm.optim',
    'lightly.loss', 'fastcore.test', 'effssl.tables', 'effssl.frameworks.moco', 'effssl.techniques.dual_gating']


def serve(command, cwd, env):
    "What the forked process does: be the kernel of this connection file."
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    import matplotlib, pandas
    from ipykernel.kernelapp import IPKernelApp
    # what both take from a kernel when it imports them
    matplotlib.rcParams['backend'] = 'module://matplotlib_inline.backend_inline'
    pandas.set_option('display.max_columns', 20)
    own = [f'--IPKernelApp.parent_handle={os.getppid()}', '--log-level=40']
    IPKernelApp.launch_instance([*command[command.index('-f'):], *own])


class Child:
    "A forked process, spoken to like a `subprocess.Popen`."
    stdin = stdout = stderr = None
    def __init__(self, *args):
        self.process = multiprocessing.get_context('forkserver').Process(target=serve, args=args)
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
    "Launches kernels by a fork."
    async def launch_kernel(self, cmd, **kwargs):
        self.process = Child(cmd, kwargs.get('cwd') or os.getcwd(), kwargs['env'])
        self.pid = self.pgid = self.process.pid
        return self.connection_info


def start():
    "Start the process that forks, and fork the kernels that this process asks for from now on."
    forkserver.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()
    factory = KernelProvisionerFactory.instance()
    factory.provisioners['forked'] = EntryPoint('forked', 'kernels:Forked', factory.GROUP_NAME)
    factory.default_provisioner_name = 'forked'
