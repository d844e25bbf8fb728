"""A command in a network of its own, whose only name server notes each look-up.

python no_network.py COMMAND… runs in a new user, network and mount namespace (`unshare -rnm`). It prints the number of queries
that a look-up on purpose made, and those of the command, as JSON.
"""

import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SET_FLAGS, IS_UP = 0x8914, 0x1


def main() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        fcntl.ioctl(link, SET_FLAGS, struct.pack("16sH14x", b"lo", IS_UP))
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as config:
        config.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        config.flush()
        subprocess.run(["mount", "--bind", config.name, "/etc/resolv.conf"], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    queries: list[str] = []

    def listen() -> None:
        while True:
            queries.append(ascii(server.recv(512)[12:]))

    threading.Thread(target=listen, daemon=True).start()
    try:
        socket.getaddrinfo("lookup-on-purpose.example", 80)
    except OSError:
        time.sleep(0.1)
    on_purpose = len(queries)
    done = subprocess.run(sys.argv[1:], stdout=sys.stderr, check=False)
    time.sleep(0.1)
    print(json.dumps({"on_purpose": on_purpose, "queries": queries[on_purpose:]}))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
