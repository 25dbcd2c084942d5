"""A notebook on a page of Chromium: run it, find its widgets, work their controls, read pixels, console and errors."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.browser.lab import Lab, find_browser, wait_for

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

webdriver = pytest.importorskip("selenium.webdriver", reason='selenium is not installed: pip install -e ".[test]"')
WebDriverException = pytest.importorskip("selenium.common").WebDriverException
CSS = "css selector"
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1400,1800"
).split()  # the sandbox refuses to start as root, as in containers
HARMLESS = {
    r"favicon\.ico": "the server has no icon at its root",
    r"/static/notebook/notebook_core.*reading 'schema'": "Notebook 7.6 itself, with an empty notebook too",
    r"/static/notebook/notebook_core.*'filebrowser:open-path' not reg": "the same, after JupyterLab on one server",
}
NOTEBOOK = "const panel = window.jupyterapp?.shell?.currentWidget;"
STATE = """
const kernel = panel?.sessionContext?.session?.kernel;
if (panel?.context?.path !== arguments[0] || !panel.context.isReady) return `${arguments[0]} is not loaded`;
return kernel ? `kernel ${kernel.status}` : "no kernel";
"""
RUN_ALL = """
window.mvfRun = "running";
window.jupyterapp.commands.execute("notebook:run-all-cells").then(
  () => { window.mvfRun = "done"; }, (error) => { window.mvfRun = `failed: ${error}`; });
"""
CELLS = """
return panel.content.widgets.map((cell) => ({
  id: cell.model.id, source: cell.model.sharedModel.source, type: cell.model.type,
  count: cell.model.executionCount ?? null,
  outputs: (cell.model.outputs?.toJSON() ?? []).map((o) => ({
    text: [].concat(o.text ?? o.data?.["text/html"] ?? o.data?.["text/plain"] ?? "").join("").slice(0, 100000),
    shown: "application/vnd.jupyter.widget-view+json" in (o.data ?? {})
      || /^<div [^>]*mvf-shown/.test(o.data?.["text/html"]),
    error: (o.traceback ?? []).join("\\n"),
    stderr: o.name === "stderr" ? [].concat(o.text).join("").slice(-2000) : "" }))}));
"""
SHOW = """
panel.content.activeCellIndex = arguments[0];
panel.content.scrollToItem(arguments[0], "start").catch(() => {});
"""
SAVE = """
const done = arguments[0];
window.jupyterapp.commands.execute("docmanager:save").then(() => done(), (error) => done(String(error)));
"""
STOP = """
const done = arguments[0];
window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(done, done);
"""
SETTLE = """
const [frames, done] = arguments, next = (left) => (left ? requestAnimationFrame(() => next(left - 1)) : done());
next(frames);
"""


class Page:
    """One notebook on show.

    Args:
        driver: Of the browser.
        lab: Server of the notebook.
        notebook: Its path below the server's root.
        shots: First part of the paths of screenshots.
    """

    def __init__(self, driver: webdriver.Chrome, lab: Lab, notebook: str, shots: Path) -> None:
        self.driver, self.lab, self.notebook, self.shots = driver, lab, notebook, shots
        self._console: list[str] = []

    def script(self, text: str, *arguments: Any) -> Any:
        """Runs JavaScript in which `panel` is the notebook on show."""
        return self.driver.execute_script(NOTEBOOK + text, *arguments)

    def idle(self) -> bool:
        """Whether the notebook is loaded and its kernel idle."""
        return self.script(STATE, self.notebook) == "kernel idle"

    def without_kernel(self) -> bool:
        """Whether the notebook is loaded with "No Kernel"; chooses it in the dialog once that is there."""
        buttons = self.driver.find_elements(CSS, ".jp-Dialog button")
        for button in (b for b in buttons if b.text == "No Kernel"):
            button.click()
        return not buttons and self.script(STATE, self.notebook) == "no kernel"

    def screenshot(self, name: str) -> Path:
        """Saves what the window shows; returns the file."""
        path = self.shots.with_name(f"{self.shots.name}-{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))
        return path

    def run_all(self, seconds: float = 180) -> None:
        """Runs all cells; AssertionError naming those that fail."""
        self.script(RUN_ALL)
        wait_for(lambda: self.script("return window.mvfRun") != "running", "all cells to run", seconds)
        wait_for(self.idle, "the kernel to be idle again")
        assert self.script("return window.mvfRun") == "done", self.script("return window.mvfRun")
        failed = [c["id"] for c in self.cells() if any(o["error"] for o in c["outputs"])]
        unrun = [c["id"] for c in self.cells() if c["type"] == "code" and c["source"].strip() and c["count"] is None]
        assert not failed and not unrun, f"cells that failed: {failed}; that did not run: {unrun}"

    def save(self) -> Path:
        """Saves the notebook, as the user's Ctrl-S does; returns the file."""
        self.driver.execute_async_script(SAVE)
        return self.lab.root / self.notebook

    def cells(self) -> list[dict]:
        """Id, type, source, execution count and outputs (text, traceback, whether it is a widget) of every cell."""
        return self.script(CELLS)

    def text(self) -> str:
        """What the cells printed, and their tables as HTML."""
        return "\n".join(output["text"] for cell in self.cells() for output in cell["outputs"])

    def cell_errors(self) -> list[str]:
        """Tracebacks of the cells that failed."""
        errors = [(c["id"], o["error"]) for c in self.cells() for o in c["outputs"] if o["error"]]
        return [f"cell {name}: " + re.sub(r"\x1b\[[0-9;]*m", "", text)[-3000:] for name, text in errors]

    def console_errors(self) -> list[str]:
        """SEVERE entries of the page's console so far, without the harmless ones."""
        entries = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        self._console += [text for text in entries if not any(re.search(known, text) for known in HARMLESS)]
        return self._console

    def show(self, cell: str) -> None:
        """Scrolls to the cell with this id: notebooks draw only the cells in sight."""
        self.script(SHOW, [c["id"] for c in self.cells()].index(cell))

    def widget(self, hook: str, seconds: float = 30) -> WebElement:
        """The element with `data-mvf=hook`, drawn and scrolled to: notebooks draw only the cells in sight."""
        views = [i for i, c in enumerate(self.cells()) if any(o["shown"] for o in c["outputs"])]
        assert views, "no cell has a widget or a browser among its outputs"
        selector = f'[data-mvf="{hook}"][data-ready="true"]'

        def found() -> list[WebElement]:
            for view in views:
                self.script(SHOW, view)
                with suppress(AssertionError):
                    return wait_for(lambda: self.driver.find_elements(CSS, selector), selector, 2)
            return []

        root = wait_for(found, f"{selector} in the cells {[self.cells()[i]['id'] for i in views]}", seconds)[0]
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", root)
        return root

    def settle(self, frames: int = 3) -> None:
        """Lets the page draw: waits for its next animation frames."""
        self.driver.execute_async_script(SETTLE, frames)

    def panels(self, root: WebElement, canvas: str = "canvas") -> list[NDArray[np.uint8]]:
        """The pictures (h, w, 3) RGB on a canvas of a widget, row by row.

        A picture is a large opaque part: around it the canvas is transparent but for text.
        """
        element = root.find_element(CSS, canvas)
        address = self.driver.execute_script("return arguments[0].toDataURL('image/png')", element)
        data = np.frombuffer(base64.b64decode(address.split(",")[1]), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        parts = cv2.connectedComponentsWithStats((pixels[..., 3] == 255).astype(np.uint8))[2][1:]
        large = sorted((y, x, w, h) for x, y, w, h, area in parts if area > 0.05 * pixels[..., 0].size)
        return [pixels[y : y + h, x : x + w, 2::-1] for y, x, w, h in large]

    def control(self, root: WebElement, label: str, kind: str) -> WebElement:
        """The control whose label or button text begins with `label`; `kind` is a CSS selector such as `select`."""
        elements = root.find_elements(CSS, kind)
        names = [self._label(element) for element in elements]
        chosen = [e for e, name in zip(elements, names) if name.lower().strip().startswith(label.lower())]
        assert chosen, f'no {kind} is labelled "{label}"; there are {names}'
        return chosen[0]

    def _label(self, element: WebElement) -> str:
        words = "const e = arguments[0]; return [...(e.labels ?? [])].map((l) => l.textContent).concat("
        return " ".join(self.driver.execute_script(words + "e.ariaLabel ?? '', e.title, e.textContent)", element))

    def drag(self, slider: WebElement, share: float) -> None:
        """Drags a range slider's thumb with the mouse to `share` (0 to 1) of its length."""
        half = slider.size["width"] / 2
        now = self.script("const e = arguments[0]; return (e.value - e.min) / (e.max - e.min)", slider)
        places = [round((2 * where - 1) * (half - 3)) for where in (now, share)]  # half a thumb is 3 pixels
        chain = webdriver.ActionChains(self.driver).move_to_element_with_offset(slider, places[0], 0).click_and_hold()
        chain.move_to_element_with_offset(slider, sum(places) // 2, 0)
        chain.move_to_element_with_offset(slider, places[1], 0).release().perform()

    def hover(self, element: WebElement, across: float, down: float) -> None:
        """Moves the mouse to a place of an element, in shares of its width and height."""
        x, y = (round((share - 0.5) * element.size[side]) for share, side in ((across, "width"), (down, "height")))
        webdriver.ActionChains(self.driver, duration=0).move_to_element_with_offset(element, x, y).perform()
        self.settle()

    def press(self, element: WebElement, *keys: str) -> None:
        """Presses keys, named as in selenium ("ARROW_RIGHT"), in an element."""
        self.driver.execute_script("arguments[0].focus()", element)
        webdriver.ActionChains(self.driver).send_keys(*(getattr(webdriver.Keys, key) for key in keys)).perform()

    def options(self, select: WebElement) -> list[str]:
        """What the options of a dropdown read."""
        return [option.text.strip() for option in select.find_elements(CSS, "option")]

    def choose(self, select: WebElement, text: str) -> None:
        """Chooses the option of a dropdown that reads `text`."""
        select.find_elements(CSS, "option")[self.options(select).index(text)].click()

    def end(self) -> None:
        """Stops the kernel, which other pages would otherwise wait beside, and closes the browser."""
        with suppress(WebDriverException):  # no kernel, or the page is what died
            self.driver.execute_async_script(STOP)
        self.driver.quit()

    def explain(self, error: BaseException) -> str:
        """What a person needs to see what went wrong: message, cells, console, server log, picture of the page."""
        parts = [str(error)]
        for look in (self.cell_errors, self.console_errors, self.lab.tail, lambda: self.screenshot("failure")):
            try:
                found = look()
            except WebDriverException as dead:  # the page may be what died
                found = f"{type(dead).__name__}: {dead.msg}"
            parts += found if isinstance(found, list) else [str(found)]
        return "\n".join(parts)


@contextmanager
def open_page(
    lab: Lab, notebook: str, shots: Path, *, view: str = "lab", visible: bool = False, kernel: bool = True
) -> Iterator[Page]:
    """A page that shows a notebook with its kernel idle; what fails inside is explained with the page's state.

    Args:
        lab: Running server.
        notebook: Path of the notebook below the server's root.
        shots: Folder for screenshots.
        view: "lab" for JupyterLab, "notebooks" for Notebook 7.
        visible: Show the browser's window.
        kernel: Wait for the kernel; if false, choose "No Kernel" when the page asks.
    """
    options = webdriver.ChromeOptions()
    options.binary_location, driver_path = find_browser()
    for argument in (*ARGUMENTS, *([] if visible else ["--headless=new"])):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    page = Page(driver, lab, notebook, shots / f"{Path(notebook).stem}-{view}")
    # A workspace of its own: else JupyterLab opens the notebooks of earlier pages too.
    place = f"lab/workspaces/{Path(notebook).stem}/tree" if view == "lab" else view
    try:
        driver.get(f"{lab.url}{place}/{notebook}?token={lab.token}")
        if kernel:
            wait_for(page.idle, "the notebook to open with an idle kernel", 90)
        else:
            wait_for(page.without_kernel, "the notebook to open with no kernel", 90)
        yield page
    except (AssertionError, WebDriverException) as error:
        raise AssertionError(page.explain(error)) from error
    finally:
        page.end()
