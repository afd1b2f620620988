"""moto behind a proxy that answers the calls which moto does not have, as an account would in which nothing is locked,
archived or in the Recycle Bin. Everything else is moto's."""

import threading
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
# The empty list of each.
LACKING = {
    "DescribeLockedSnapshots": "snapshotSet",
    "DescribeSnapshotTierStatus": "snapshotTierStatusSet",
    "ListSnapshotsInRecycleBin": "snapshotSet",
}


class Proxy:
    """A server of its own, until it is stopped. `asked`: the calls that moto did not get."""

    def __init__(self, moto):
        self.asked = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                action = dict(urllib.parse.parse_qsl(body.decode())).get("Action", "")
                if action in LACKING:
                    proxy.asked.append(action)
                    empty = f"<requestId>0</requestId><{LACKING[action]}/>"
                    answer = f'<{action}Response xmlns="{NAMESPACE}">{empty}</{action}Response>'.encode()
                    self.answer(200, {"Content-Type": "text/xml"}, answer)
                    return
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                request = urllib.request.Request(moto.endpoint + self.path, body, headers)
                try:
                    with urllib.request.urlopen(request, timeout=60) as said:
                        self.answer(said.status, said.headers, said.read())
                except urllib.error.HTTPError as said:
                    self.answer(said.code, said.headers, said.read())

            def answer(self, status, headers, body):
                self.send_response(status)
                for name in ("Content-Type", "Date"):
                    if name in headers and name != "Date":
                        self.send_header(name, headers[name])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
