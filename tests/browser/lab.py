"""A Jupyter server over a folder, with JupyterLab and Notebook 7, as the browser tests start it; `page.py` looks at it.

By hand, with a browser that you can see (same server, settings and notebooks as in the tests)::

    MVF_BROWSER=visible MVF_SCREENSHOTS=/tmp/shots python -m pytest tests/browser -n 0 -x --pdb

`--pdb` stops at the first failure with the page still open. There, `page.script("return ...")` runs JavaScript, and
`window.jupyterapp` is the whole application. The server alone, to point any browser at::

    python -m tests.browser.lab FOLDER_WITH_NOTEBOOKS

The page has no network: news, update checks and the extension manager are off. Nothing waits for a fixed time:
every step polls the application's own state (kernel status, promise of "run all", `data-ready` of a widget).
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SETTINGS = Path(__file__).resolve().parents[2] / "notebooks" / "jupyter"  # of `make lab`
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}


def find_browser() -> tuple[str, str]:
    """Paths of a Chromium or Chrome and of its driver.

    Raises:
        LookupError: why no browser test can run here.
    """
    if not importlib.util.find_spec("selenium"):
        raise LookupError('selenium is not installed: pip install -e ".[test]"')
    from selenium.common import WebDriverException
    from selenium.webdriver.common.selenium_manager import SeleniumManager

    browser, driver = next(filter(None, map(shutil.which, BROWSERS)), ""), shutil.which("chromedriver") or ""
    if not (browser and driver):  # selenium knows where macOS and Windows keep a browser, and what it fetched earlier
        with suppress(WebDriverException):
            known = SeleniumManager().binary_paths(["--browser", "chrome", "--offline"])
            browser, driver = browser or known["browser_path"], driver or known["driver_path"]
    for name, found, tried in (("browser", browser, ", ".join(BROWSERS)), ("driver", driver, "chromedriver")):
        if not found:
            raise LookupError(f"no {name} for the browser tests: looked for {tried} on the PATH, and asked selenium")
    return browser, driver


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Polls until `condition()` is true and returns it; AssertionError names `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.05)
    return value


class Lab:
    """A Jupyter server on a free port; a context manager.

    Settings, runtime files and the log go to `root/.jupyter-test`: nothing of the user's own is read or written.

    Args:
        root: Folder that the server shows.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / ".jupyter-test"
        self.log, self.token, self.url = self.home / "server.log", secrets.token_hex(16), ""

    def __enter__(self) -> Lab:
        for name in FOLDERS.values():
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "config" / "jupyter_server_config.json").write_text(json.dumps(self._config()))
        news = self.home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
        news.parent.mkdir(parents=True, exist_ok=True)
        news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))  # else it asks, over the page
        environment = self.environment = os.environ | {
            name: str(self.home / folder) for name, folder in FOLDERS.items()
        }
        environment["JUPYTER_CONFIG_PATH"] = str(SETTINGS)
        environment.pop("MPLBACKEND", None)  # kernels then draw inline, as a user's do
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_server"], cwd=self.root, env=environment,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            self.url = wait_for(self._address, "the Jupyter server to start", 60)
        except BaseException as error:
            self.__exit__()
            raise AssertionError(f"{error}\n{self.tail()}") from error
        return self

    def __exit__(self, *exception: object) -> None:
        """SIGTERM lets the server stop its kernels; a server that does not end in ten seconds is killed."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # kernels end by themselves when their parent has
            self.process.wait()

    def trust(self, notebook: str) -> None:
        """Signs a notebook as the user's own, as `make demo` does."""
        subprocess.run(
            [sys.executable, "-m", "jupyter", "trust", notebook], cwd=self.root, env=self.environment, check=True
        )

    def tail(self, lines: int = 25) -> str:
        """The end of the server's log."""
        return f"server log {self.log}:\n" + "\n".join(self.log.read_text().splitlines()[-lines:])

    def _config(self) -> dict:
        exposed = {"expose_app_in_browser": True}
        offline = {"news_url": None, "check_for_updates_class": "jupyterlab.NeverCheckForUpdate"}
        return {
            "ServerApp": {
                "ip": "127.0.0.1",
                "port": 0,
                "open_browser": False,
                "allow_root": True,
                "root_dir": str(self.root),
                "jpserver_extensions": {"jupyterlab": True, "notebook": True},
            },
            "IdentityProvider": {"token": self.token},
            "LabApp": exposed | offline | {"extension_manager": "readonly"},
            "JupyterNotebookApp": exposed,
        }

    def _address(self) -> str:
        """The server's address once it listens, by the file that it then writes."""
        assert self.process.poll() is None, f"the Jupyter server stopped with {self.process.returncode}"
        found = list((self.home / "runtime").glob("jpserver-*.json"))
        try:
            return json.loads(found[0].read_text())["url"] if found else ""
        except json.JSONDecodeError:  # half written
            return ""


if __name__ == "__main__":
    with Lab(Path(sys.argv[1]).resolve()) as server:
        sys.stdout.write(f"{server.url}lab?token={server.token}\n{server.url}tree?token={server.token}\n")
        sys.stdout.flush()
        server.process.wait()
