"""One request to the inspector on its usual port.

usage: ask_inspector.py PATH [TOKEN]; prints the status, or why there is no answer, and the body of a 200.
"""

import sys
import urllib.error
import urllib.request

path, *token = sys.argv[1:]
request = urllib.request.Request(f"http://127.0.0.1:7180{path}")
if token:
    request.add_header("authorization", f"Bearer {token[0]}")
try:
    with urllib.request.urlopen(request, timeout=30) as answer:
        print(answer.status, answer.read().decode())  # noqa: T201
except urllib.error.HTTPError as error:
    print(error.code)  # noqa: T201
except urllib.error.URLError as error:
    print(error.reason)  # noqa: T201
