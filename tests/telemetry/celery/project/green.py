"""
The shop in a process whose threads were replaced: what gevent and eventlet report about themselves.

The libraries are not installed with the tests. What is checked is what they are asked.
"""

import os
import sys
import types

from shop import app as app

if os.environ["GREEN"] == "gevent":
    module = types.ModuleType("gevent.monkey")
    module.is_module_patched = lambda name: name == "threading"
else:
    module = types.ModuleType("eventlet.patcher")
    module.is_monkey_patched = lambda name: name == "thread"
sys.modules[module.__name__] = module
