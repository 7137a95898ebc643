"""The proxy of `cluster_configs/nginx`, started on 127.0.0.1 in front of a server. Only addresses and paths are replaced."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

CONFIGS = Path(__file__).parents[2] / "cluster_configs"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")
"""The installed nginx, or None."""
HOST = "api.example.org"
_LIMIT_S = 30
_MAIN = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


@dataclass(frozen=True)
class FrontProxy:
    """A running nginx, with the TLS settings of its clients; None without TLS."""

    port: int
    context: ssl.SSLContext | None

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def open(self) -> socket.socket:
        """A connection to the proxy."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=_LIMIT_S)
        return self.context.wrap_socket(plain, server_hostname=HOST) if self.context else plain


def on_machines() -> str:
    """The configuration for machines, with TLS."""
    return (CONFIGS / "nginx" / "compass-ray.conf").read_text("utf-8")


def on_kubernetes() -> str:
    """The configuration of the gateway on Kubernetes, where an Ingress ends TLS."""
    documents = yaml.safe_load_all((CONFIGS / "kuberay" / "gateway.yaml").read_text("utf-8"))
    (configured,) = (each for each in documents if each["kind"] == "ConfigMap")
    return str(configured["data"]["compass-ray.conf"])


@contextmanager
def start_nginx(configuration: str, folder: Path, upstream: int) -> Iterator[FrontProxy]:
    """Run nginx with a shipped configuration in front of a port of 127.0.0.1."""
    port = _free_port()
    context = _make_certificate(folder) if "ssl_certificate" in configuration else None
    limits = str(CONFIGS / "nginx" / "limits.conf")
    replaced = {
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "compass-ray-serve-svc.NAMESPACE.svc.cluster.local:8000": f"127.0.0.1:{upstream}",
        "API.EXAMPLE.ORG": HOST,
        "INGRESS_ADDRESSES": "127.0.0.1/32",
        "/etc/nginx/tls/": f"{folder}/",
        "/etc/nginx/compass-ray-limits.conf": limits,
        "/etc/nginx/compass-ray/limits.conf": limits,
    }
    for before, after in replaced.items():
        configuration = configuration.replace(before, after)
    (folder / "site.conf").write_text(configuration)
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder))
    process = subprocess.Popen([str(NGINX), "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "log")])
    try:
        _wait_for(port)
        yield FrontProxy(port, context)
    finally:
        process.terminate()
        process.wait(_LIMIT_S)


def _make_certificate(folder: Path) -> ssl.SSLContext:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1"]
    command += ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    subprocess.run(command, check=True, capture_output=True)
    return ssl.create_default_context(cafile=str(folder / "tls.crt"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@retry(retry=retry_if_exception_type(OSError), stop=stop_after_delay(_LIMIT_S), wait=wait_fixed(0.02), reraise=True)
def _wait_for(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
