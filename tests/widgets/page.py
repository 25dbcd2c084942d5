"""A widget in a plain page of a headless browser, without Jupyter: a stand-in for its kernel feeds it.

It is the stand-in of the saved pages (`page.js`), and does what a kernel does beyond that. The traits come from Python
as anywidget sends them: JSON, bytes as DataView (here at an odd offset, as they may arrive in a message).
`window.model` is the stand-in: `saved` holds what the page told the kernel, `sent` its messages, and
`fromKernel(key, value)` is Python setting a trait. While the `Page` of a labeler waits, its messages reach Python, and
the answers and the traits that Python sets reach the page, as a kernel carries them.
"""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvf.workbench.widgets import PhaseLabeler
from mvf.workbench.widgets.encoding import FOLDER
from tests.browser.lab import find_browser

LIGHT = {"color": "#212121", "background": "#fff"}
DARK = {"color": "#e0e0e0", "background": "#111"}
THEMES = {  # JupyterLab's own values
    "light": LIGHT,
    "dark": DARK
    | {
        "--jp-ui-font-color1": "rgba(255,255,255,1)",
        "--jp-ui-font-color2": "rgba(255,255,255,0.7)",
        "--jp-layout-color1": "#212121",
        "--jp-layout-color2": "#424242",
        "--jp-border-color1": "#616161",
        "--jp-brand-color1": "#2196f3",
    },
}
KERNEL = (FOLDER / "page.js").read_text("utf-8").split("function startPage")[0]
HARNESS = """
// A kernel's message may hold bytes at an odd offset.
const odd = (value) => {
  if (Array.isArray(value)) return value.map(odd);
  if (value instanceof DataView) {
    const message = new Uint8Array(value.byteLength + 1);
    message.set(new Uint8Array(value.buffer), 1);
    return new DataView(message.buffer, 1);
  }
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, odd(v)]));
};
class Kernel extends Model {
  constructor(traits) {
    super(traits);
    Object.assign(this, { saved: [], sent: [], unsaved: {} });
  }
  set(key, value) {
    if (this.get(key) === value) return;
    this.unsaved[key] = value;
    super.set(key, value);
  }
  fromKernel(key, value) {
    super.set(key, value);
  }
  save_changes() {
    this.saved.push(this.unsaved);
    this.unsaved = {};
  }
  send(content, callbacks, buffers) {
    this.sent.push({ content, buffers });
  }
  receive(content, buffers) {
    for (const listener of this.listeners["msg:custom"] ?? []) listener(odd(revive(content)), odd(revive(buffers)));
  }
}
const { esm, traits } = JSON.parse(document.getElementById("data").textContent);
window.model = new Kernel(odd(revive(traits)));
const address = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
const el = document.getElementById("widget");
import(address).then((module) => module.default.render({ model, el })).then((dispose) => { window.dispose = dispose; });
"""


def write_page(widget, path: Path, theme: str = "light") -> Path:
    """An HTML file that shows the widget."""
    state = {key: value for key, value in widget.get_state().items() if key[0] != "_" and key != "layout"}
    data = json.dumps({"esm": widget._esm, "traits": state}, default=_plain).replace("</", "<\\/")
    style = ";".join(f"{key}:{value}" for key, value in THEMES[theme].items())
    path.write_text(
        f'<!doctype html><html style="color-scheme:{theme};{style}"><meta charset="utf-8"><style>{widget._css}</style>'
        f'<body style="margin:8px"><div id="widget"></div><script type="application/json" id="data">{data}</script>'
        f'<script type="module">{KERNEL}{HARNESS}</script>'
    )
    return path


def _plain(value: bytes) -> dict[str, str]:
    if isinstance(value, (bytes, memoryview)):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(f"a trait must be JSON or bytes, got {type(value)}")


def start_browser(*more: str):
    """A headless Chromium, with `more` arguments; the test skips where there is none."""
    try:
        browser, driver = find_browser()
    except LookupError as reason:
        pytest.skip(str(reason))
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,900", *more):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


class Page:
    """A widget shown in a browser: what a person can do with it, and what they see."""

    def __init__(self, driver, widget, path: Path, theme: str = "light", width: int = 1000) -> None:
        self.driver, self.widget = driver, widget
        self.answers, self.changes = [], {}
        widget.send = lambda content, buffers=None: self.answers.append((content, buffers or []))
        widget.observe(lambda change: self.changes.update({change["name"]: change["new"]}), list(widget.keys))
        driver.set_window_size(width, 900)
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        driver.get_log("browser")
        driver.get(write_page(widget, path, theme).as_uri())
        self.wait("root.dataset.ready === 'true'")

    def run(self, script: str, *arguments: object) -> object:
        """Runs JavaScript with `root`, the widget's root, and `args`."""
        text = f"const root = document.querySelector('[data-mvf]'), args = arguments; {script}"
        return self.driver.execute_script(text, *arguments)

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Until the JavaScript expression holds."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, seconds, poll_frequency=0.02)
        try:
            waiting.until(lambda _: self.serve() or self.run(f"return Boolean(root && ({condition}))"))
        except TimeoutException:
            raise AssertionError(f"never: {condition}; {self.errors()}") from None

    def serve(self) -> None:
        """Carries a labeler's messages to Python, and its answers, then its traits, to the page."""
        if not isinstance(self.widget, PhaseLabeler):  # others need no answer; their tests read what they sent
            return
        for message in self.run("return window.model?.sent.splice(0).map((m) => m.content) ?? []"):
            self.widget._handle_custom_msg(message, [])
        for content, buffers in self.answers:
            packed = [{"$bytes": base64.b64encode(buffer).decode()} for buffer in buffers]
            self.run("window.model.receive(args[0], args[1])", content, packed)
        for key, value in self.changes.items():
            self.run("window.model.fromKernel(args[0], args[1])", key, value)
        self.answers.clear()
        self.changes.clear()

    def control(self, label: str):
        """The control with this label, or the button with this text."""
        found = self.run(
            "const named = [...root.querySelectorAll('label')].find((l) => l.textContent.startsWith(args[0]));"
            "const all = [...root.querySelectorAll('button, input')];"
            "return named?.querySelector('input, select')"
            " ?? all.find((one) => [one.textContent, one.ariaLabel].includes(args[0]))",
            label,
        )
        assert found is not None, f"no control is labelled {label!r}"
        return found

    def put(self, label: str, value: object) -> None:
        """Sets a slider, select or checkbox as a person does, with the events that follow."""
        event = "input" if self.control(label).get_attribute("type") == "range" else "change"
        self.run(
            "if (args[0].type === 'checkbox') args[0].checked = args[1]; else args[0].value = args[1];"
            "args[0].dispatchEvent(new Event(args[2], {bubbles: true}));",
            self.control(label),
            value,
            event,
        )
        self.settle()

    def drag(self, share: float) -> None:
        """Drags the cursor of the timeline with the mouse from where it is to `share` (0 to 1) of its length."""
        from selenium.webdriver import ActionChains

        line = self.driver.find_element("css selector", ".mvf-scrub")
        now = self.run("return args[0].value / Math.max(1, args[0].max)", line)
        places = [round((where - 0.5) * (line.size["width"] - 6)) for where in (now, (now + share) / 2, share)]
        chain = ActionChains(self.driver, duration=20).move_to_element_with_offset(line, places[0], 0).click_and_hold()
        for place in places[1:]:
            chain.move_to_element_with_offset(line, place, 0)
        chain.release().perform()
        self.settle()

    def press(self, key: str) -> None:
        self.driver.switch_to.active_element.send_keys(key)
        self.settle()

    def settle(self) -> None:
        """Until what was asked for is drawn."""
        self.driver.execute_async_script("const f = requestAnimationFrame; f(() => f(() => arguments[0]()))")
        self.wait("root.dataset.ready === 'true'")

    @property
    def frame(self) -> int:
        return int(self.run("return root.dataset.frame"))

    def pixels(self, canvas: int = 0) -> np.ndarray:
        """(H, W, 4) uint8: what a canvas shows."""
        data = self.run("return root.querySelectorAll('canvas')[args[0]].toDataURL('image/png')", canvas)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGBA"))

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(self.driver.get_screenshot_as_png())
        return path

    def errors(self) -> list[str]:
        """Of the page's console."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
