"""Programs that try to get out of a sandbox: one that comes to its end has succeeded."""

ESCAPES = {
    "read a file": "open('/etc/passwd').read()",
    "read a file by its number": "assert open(0).read() or open(1).read()",
    "list folders": """
import os
found = []
for folder in ('/etc', '/proc', '/sys', '/dev', '/tmp', '/var', '/run', '/boot'):
    try:
        found += os.listdir(folder)
    except Exception:
        pass
assert found
""",
    "write files": """
written = 0
for path in ('/tmp/x', 'x', '/x', '/dev/shm/x', '/var/tmp/x', '/usr/lib/x'):
    try:
        with open(path, 'w') as file:
            file.write('x' * 100000)
        written += 1
    except Exception:
        pass
assert written
""",
    "read the environment": """
import os
assert os.environ.get('PATH') or os.environ.get('HOME')
""",
    "use the network": """
import socket
assert [name for _, name in socket.if_nameindex() if name != 'lo']
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))
""",
    "start a program": """
import subprocess, sys
subprocess.run([sys.executable, '-c', ''], check=True)
""",
    "start a shell": """
import os
assert os.system('exit 0') == 0
""",
    "fork": """
import os
if os.fork() == 0:
    os._exit(0)
""",
    "fork without end": """
import os
while True:
    os.fork()
""",
    "start a thread": """
import threading
threading.Thread(target=print).start()
""",
    "become another program": """
import os, sys
os.execv('/bin/sh', ['sh', '-c', 'exit 0'])
""",
    "make a namespace": """
import ctypes
libc = ctypes.CDLL(None)
assert libc.unshare(0x10000000) == 0 or libc.mount(b'x', b'/', b'tmpfs', 0, None) == 0
""",
    "raise a limit": """
import resource
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
""",
    "walk to a shell": """
classes = ().__class__.__base__.__subclasses__()
found = [c for c in classes if c.__name__ == '_wrap_close']
assert found[0].__init__.__globals__['system']('exit 0') == 0
""",
    "walk to the builtins": """
opened = (lambda: 0).__globals__['__builtins__']
(opened['open'] if isinstance(opened, dict) else opened.open)('/etc/passwd')
""",
    "see the host": """
import os
assert os.getppid() > 2
""",
    "run for ever": "while True: pass",
    "catch what ends it": """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
""",
    "grow a text": "x = 'a'\nwhile True: x += x",
    "grow a list": "x = [0]\nwhile True: x = x + x",
    "grow a number": "x = 9 ** 9 ** 9",
    "fill memory at once": "x = [0] * 10 ** 10",
    "recur": "def f(): return 1 + f()\nf()",
    "print without end": "while True: print('a' * 1000)",
}
