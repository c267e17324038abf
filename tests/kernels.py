"Jupyter kernels forked from one process that has imported everything: real kernels, their start paid once."
import multiprocessing, os, signal
from importlib.metadata import EntryPoint

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

PRELOAD = ['ipykernel.kernelapp', 'effssl.tables', 'effssl.frameworks.moco', 'matplotlib_inline.backend_inline', 'seaborn', 'sklearn.datasets', 'skimage',
           'kornia', 'torchvision', 'timm.optim', 'fastcore.test', 'lightly.loss']  # nothing here starts a thread, so a fork is whole


def serve(command, cwd, env):
    "What the forked process does: be the kernel of this connection file."
    os.setsid(); os.chdir(cwd); os.environ.clear(); os.environ.update(env)
    import matplotlib
    from ipykernel.kernelapp import IPKernelApp
    matplotlib.rcParams['backend'] = 'module://matplotlib_inline.backend_inline'  # as a kernel's environment has it before the import
    IPKernelApp.launch_instance([*command[command.index('-f'):], f'--IPKernelApp.parent_handle={os.getppid()}', '--log-level=40'])  # goes when the server goes


class Child:
    "A forked process, spoken to like a `subprocess.Popen`."
    stdin = stdout = stderr = None
    def __init__(self, *args):
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(PRELOAD)
        self.process = context.Process(target=serve, args=args)
        self.process.start(); self.pid = self.process.pid
    def poll(self): return self.process.exitcode
    def wait(self): self.process.join(); return self.process.exitcode
    def send_signal(self, number): os.kill(self.pid, number)
    def kill(self): self.send_signal(signal.SIGKILL)
    def terminate(self): self.send_signal(signal.SIGTERM)


class Forked(LocalProvisioner):
    "Launches kernels by a fork."
    async def launch_kernel(self, cmd, **kwargs):
        self.process = Child(cmd, kwargs.get('cwd') or os.getcwd(), kwargs['env'])
        self.pid = self.pgid = self.process.pid
        return self.connection_info


def install():
    "From here on the kernels that this process starts are forked."
    factory = KernelProvisionerFactory.instance()
    factory.provisioners['forked'] = EntryPoint('forked', 'kernels:Forked', factory.GROUP_NAME)
    factory.default_provisioner_name = 'forked'
