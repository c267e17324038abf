"`dev.py lab`, headless: a person's path from the page to a cell that runs, over HTTP and the kernel's websocket."
import json, os, signal, socket, subprocess, sys, time, urllib.request, uuid
from contextlib import closing

import pytest, websocket

from conftest import ROOT

TUTORIAL = 'tutorials/40_first_run.ipynb'


def free_port():
    with closing(socket.socket()) as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Server:
    "A running JupyterLab, spoken to as a browser does."
    def __init__(self, port, token): self.port, self.token = port, token
    def get(self, path, method='GET', body=None):
        request = urllib.request.Request(f'http://127.0.0.1:{self.port}{path}', method=method,
                                         data=body and json.dumps(body).encode(),
                                         headers={'Authorization': f'token {self.token}'})
        with urllib.request.urlopen(request, timeout=60) as answer: return answer.geturl(), answer.read().decode()
    def json(self, path, method='GET', body=None): return json.loads(self.get(path, method, body)[1] or 'null')
    def execute(self, kernel, code):
        "What a cell prints; an error in it is raised here."
        address = f'ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels?token={self.token}'
        header = dict(msg_id=uuid.uuid4().hex, session=uuid.uuid4().hex, msg_type='execute_request', username='',
                      version='5.3')
        content = dict(code=code, silent=False, store_history=True, user_expressions={}, allow_stdin=False)
        printed = ''
        with closing(websocket.create_connection(address, timeout=120)) as ws:
            ws.send(json.dumps(dict(header=header, parent_header={}, metadata={}, content=content, channel='shell')))
            while True:
                m = json.loads(ws.recv())
                if m['parent_header'].get('msg_id') != header['msg_id']: continue
                if m['msg_type'] == 'stream': printed += m['content']['text']
                if m['msg_type'] == 'error': raise AssertionError('\n'.join(m['content']['traceback']))
                if m['msg_type'] == 'status' and m['content']['execution_state'] == 'idle': return printed


def alive(pid):
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    return True


def group_is_gone(group, seconds=30):
    for _ in range(seconds*10):
        try: os.killpg(group, 0)
        except ProcessLookupError: return True
        time.sleep(.1)
    return False


@pytest.fixture
def lab(tmp_path):
    "`dev.py lab` in a process group of its own, in the environment that the tests run in."
    token, port = uuid.uuid4().hex, free_port()
    own = {'JUPYTER_RUNTIME_DIR': str(tmp_path/'runtime'), 'JUPYTER_CONFIG_DIR': str(tmp_path/'config')}
    command = [sys.executable, ROOT/'dev.py', 'lab', '--no-browser', f'--port={port}', '--ServerApp.port_retries=0',
               f'--IdentityProvider.token={token}']
    with open(tmp_path/'log', 'w+') as log:
        p = subprocess.Popen(command, env={**os.environ, 'VIRTUAL_ENV': sys.prefix, **own}, stdout=log, stderr=log,
                             start_new_session=True)
        server = Server(port, token)
        try:
            for _ in range(600):
                try:
                    server.json('/api/status')
                    break
                except OSError: assert p.poll() is None, (tmp_path/'log').read_text()[-3000:]
                time.sleep(.2)
            yield p, server
        finally:
            if not group_is_gone(p.pid, 0 if p.poll() is None else 5): os.killpg(p.pid, signal.SIGKILL)
            p.wait()


def test_lab(lab):
    p, server = lab
    assert server.get('/')[0].split('?')[0].endswith(f'/lab/tree/{TUTORIAL}')  # what a browser is sent to
    assert '<title>JupyterLab</title>' in server.get(f'/lab/tree/{TUTORIAL}')[1]
    assert TUTORIAL in [f['path'] for f in server.json('/api/contents/tutorials')['content']]
    cells = server.json(f'/api/contents/{TUTORIAL}')['content']['cells']
    code = [c['source'] for c in cells if c['cell_type'] == 'code']

    session = server.json('/api/sessions', 'POST',
                          dict(path=TUTORIAL, name=TUTORIAL, type='notebook', kernel=dict(name='python3')))
    kernel = session['kernel']['id']
    assert TUTORIAL == session['path'] and code[0].startswith('import')
    pid = int(server.execute(kernel, 'import os; print(os.getpid())'))
    assert server.execute(kernel, code[0]) == ''  # the tutorial's own first cell: imports
    ask = '''import effssl, effssl.data
print(os.path.dirname(effssl.__file__), os.getcwd())
print(effssl.data.load('photos', 'test'))'''
    where, images = server.execute(kernel, ask).splitlines()
    assert where.split() == [str(ROOT/'effssl'), str(ROOT/'nbs/tutorials')]
    assert images.startswith('Images(720 of 20 classes')
    with pytest.raises(AssertionError, match='Known: digits, photos|Did you mean photos'):
        server.execute(kernel, "effssl.data.load('photo')")

    assert alive(pid)
    server.get('/api/shutdown', 'POST')
    assert p.wait(60) == 0 and group_is_gone(p.pid) and not alive(pid)
