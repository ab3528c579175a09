"""The FiftyOne App in a browser, as a person uses it: one server and one Chromium for all tests that drive it."""

from __future__ import annotations

import atexit
import contextlib
import csv
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import pytest

from benchmarks import own_database

ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "artifacts"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SIZES = ((1280, 720), (1500, 950))  # of the window, in which what is drawn is looked at
OUTSIDE = """panel => {
  const frame = panel.getBoundingClientRect();
  const nodes = [...panel.querySelectorAll("*")].filter(node => node instanceof HTMLElement || node.tagName === "svg");
  const outside = nodes.filter(node => {
    if (node.closest(".MuiLinearProgress-root")) return false;  // its bar is moved to the left, and cut by its frame
    const box = node.getBoundingClientRect();
    return box.width && box.height && (box.left < frame.left - 1 || box.right > frame.right + 1);
  });
  return outside.map(node => [node.tagName, node.textContent.slice(0, 40)]);
}"""
# What the page asks the plugin to do on the server: how often by a key or a click, not on its own (a list that is drawn
# says what it shows), and how much of it is not answered yet.
LISTEN = """(() => {
  const ON_ITS_OWN = new RegExp("^on_(load|tick|tab|kind|slide|rest|run|earlier|precision|change_.*|" +
    "form_done|audited|mapped|lasso)$");
  const isPress = (body) => {
    if (!/"@multimem\\/audit\\/audit_(panel|sample)"/.test(body)) return true;
    const method = /"__method__":"(\\w+)"/.exec(body);
    return Boolean(method) && !ON_ITS_OWN.test(method[1]);
  };
  window.audit = { pressed: 0, asked: 0, open: 0 };
  const send = window.fetch;
  window.fetch = async (...sent) => {
    const [to, body] = [String(sent[0].url || sent[0]), String((sent[1] || {}).body || "")];
    const isOurs = to.includes("/operators/execute") && body.includes("@multimem/audit/");
    if (!isOurs || body.includes('"on_tick"')) return send(...sent);
    window.audit.asked += 1;
    window.audit.open += 1;
    if (isPress(body)) window.audit.pressed += 1;
    const done = () => { window.audit.open -= 1; };
    try {
      const answer = await send(...sent);
      answer.clone().text().then(done, done); // the page reads it at the same time: answers may come in parts
      return answer;
    } catch (error) {
      done();
      throw error;
    }
  };
})()"""
# Until everything is answered, and nothing was asked for some milliseconds after, in which the page had time to draw.
REST = """async ([quiet, limit]) => {
  const idle = () => new Promise((done) => requestIdleCallback(done, {timeout: 5000}));
  const end = performance.now() + 1000 * limit;
  for (let rested = false; !rested; ) {
    if (performance.now() > end) throw new Error(`no rest: ${JSON.stringify(window.audit)}`);
    const { asked, open } = window.audit;
    await idle();
    await new Promise((done) => setTimeout(done, quiet));
    await idle();
    rested = open === 0 && window.audit.open === 0 && window.audit.asked === asked;
  }
}"""
PATIENCE = 120  # seconds: a machine may be several times slower than the one that this was written on
# Its own process and database: what the server keeps of a session would leak into other tests. It carries out what the
# tests send it, beside serving: they prepare datasets so, and look whether a click has done what it says. Not through
# launch_app, which gives up when a busy machine is slow to start.
SERVER = """
import runpy, sys, threading, traceback
from multiprocessing.connection import Client
import fiftyone as fo
import fiftyone.server.main as server

fo.list_datasets()
line = Client(("127.0.0.1", int(sys.argv[2])))

def answer():
    while True:
        names = {"fo": fo}
        try:
            exec(line.recv(), names)
            line.send((names.get("result"), ""))
        except EOFError:
            return
        except BaseException:
            line.send((None, traceback.format_exc()))

threading.Thread(target=answer, daemon=True).start()
sys.argv = ["main.py", "--port", sys.argv[1], "--address", "127.0.0.1"]
runpy.run_path(server.__file__, run_name="__main__")
"""

# The server keeps what was open and shown, also for the next browser.
FORGET = """
from fiftyone.core.state import StateDescription
from fiftyone.server.events.state import set_state
set_state(StateDescription())
"""


class App:
    """A server of the App, and a line to its process."""

    def __init__(self, address: str, line: Connection, log: Path) -> None:
        self.address, self.line, self.log = address, line, log

    def do(self, code: str, **names: Any) -> Any:
        """Run Python in the server's process; return its `result`."""
        assignments = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        self.line.send(assignments + code)
        assert self.line.poll(5 * PATIENCE), f"the server does not answer; its log: {self.log.read_text()[-2000:]}"
        result, error = self.line.recv()
        assert not error, error
        return result

    def eventually(self, code: str, is_done: Callable[[Any], bool] = bool, **names: Any) -> Any:
        """Result of Python in the server's process, once `is_done`: a notice may vanish unseen."""
        end = time.monotonic() + PATIENCE
        while True:
            result = self.do(code, **names)
            if is_done(result):
                return result
            assert time.monotonic() < end, f"{code.strip()!r} still gives {result!r}"
            time.sleep(0.3)


def need_browser() -> Any:
    """Playwright's module; a test module is skipped where it, FiftyOne or Chromium is missing."""
    pytest.importorskip("fiftyone")
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("chromium is not installed (apt-get install chromium)", allow_module_level=True)
    playwright.expect.set_options(timeout=1000 * PATIENCE)
    return playwright


@functools.cache
def serve() -> App:
    """The one server of the tests, with a database of its own; it ends with this process."""
    home = Path(tempfile.mkdtemp(prefix="audit-app-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)  # registered first, hence done last
    return launch(home, **own_database.start())


def launch(home: Path, **settings: str) -> App:
    """A server that ends with this process; its log is in `home`."""
    log, port = home / "server.log", free_port()
    with Listener(("127.0.0.1", 0)) as waiting, log.open("w") as written:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(port), str(waiting.address[1])],
            env={**os.environ, **settings, "PYTHONUNBUFFERED": "1"},
            cwd=home,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        atexit.register(stop, server)
        waiting._listener._socket.settimeout(2 * PATIENCE)  # there is no public way to wait for so long only
        try:
            line = waiting.accept()
        except TimeoutError:
            raise AssertionError(f"the server does not start: {log.read_text()[-2000:]}") from None
    wait_for_port(port)
    return App(f"http://127.0.0.1:{port}", line, log)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for_port(port: int) -> None:
    """Until somebody listens."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < end, f"nobody listens on port {port}"
            time.sleep(0.2)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server with its database."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(timeout=30)


@functools.cache
def persons(count: int) -> list[tuple[str, str]]:
    """(picture, description) of drawn persons, some with the description of another; drawn once."""
    from audit_plugin.synthetic.demo import draw_demo

    folder = Path(tempfile.mkdtemp(prefix="audit-persons-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    manifest = draw_demo(folder, count, seed=1)
    with manifest.open(encoding="utf-8", newline="") as file:
        return [(str(manifest.parent / row["image"]), row["caption"]) for row in csv.DictReader(file)]


def make_dataset(app: App, name: str, rows: list[tuple[str, str]], then: str = "") -> None:
    """A dataset of files and captions in the server's database; `then` is run with it as `dataset`."""
    code = """
from audit_plugin.fiftyone_io import *
from audit_plugin.config import AuditConfig
dataset = fo.Dataset(name, persistent=True)
dataset.add_samples([fo.Sample(filepath=path, caption=text) for path, text in rows])
"""
    app.do(code + then, name=name, rows=rows)


def flagging(rows: Sequence[int], before: str = "") -> str:
    """Code for `make_dataset`: results that flag these rows as misaligned, after some other code."""
    return f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests.review_fixtures import written
{before}
written(dataset, {tuple(rows)})
"""


def copy_dataset(app: App, name: str, to: str) -> str:
    """A copy with its audits and without decisions."""
    app.do("fo.load_dataset(name).clone(to, persistent=True)", name=name, to=to)
    return to


def audit(of: str = "dataset", run: str = "audit") -> str:
    """Code for `make_dataset`: an audit of few trials, which flags enough of so few samples."""
    return (
        f"audit_view({of}, AuditConfig(run={run!r}, trials=8, epochs=10, encoder='offline', device='cpu', "
        "false_positive_rate=0.1))\n"
    )


def chromium() -> Iterator[Any]:
    """A fixture of a module: the browser. It may not outlive the module: Playwright's loop troubles other tests."""
    playwright = need_browser()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Any, app: App, path: str, width: int = 1500, height: int = 950) -> Iterator[Any]:
    """A fixture of a test: a dataset's page as nobody has used it yet. An uncaught error, an alert or a complaint of
    our own script fails the test after it."""
    app.do(FORGET)
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("dialog", lambda dialog: (page.errors.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: page.errors.append(message.text) if of_the_plugin(message) else None)
    page.add_init_script("window.IS_PLAYWRIGHT = true; localStorage.setItem('fiftyone-do-not-track', 'true')")
    page.add_init_script(LISTEN)
    page.route(lambda url: not url.startswith(app.address), lambda route: route.abort())
    page.goto(f"{app.address}/datasets/{path}")
    yield page
    with contextlib.suppress(Exception):  # what a failed test saw last
        shot(page, f"last-{path.partition('?')[0]}")
    context.close()
    errors = [error for error in page.errors if "loading" not in error]  # those are the App's own, while it starts
    assert not errors, errors


def of_the_plugin(message: Any) -> bool:
    """Whether a message of the browser's console is an error of this plugin."""
    source = message.text + str(message.location)
    return message.type == "error" and any(word in source for word in ("multimem", "audit"))


def shot(page: Any, name: str) -> None:
    """Keep a picture of the page."""
    page.wait_for_timeout(500)  # thumbnails fade in
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"app-{name}.png")


def wait_for_grid(page: Any) -> None:
    """Until the grid shows a sample."""
    page.wait_for_selector('[data-cy="fo-grid"] [data-cy="looker"]')


def open_panel(page: Any, name: str = "audit_panel") -> Any:
    """Open a panel beside the samples; its content."""
    content = page.locator(f'[data-cy="panel-content-{name}"]')
    offered(page, name).click()
    content.wait_for()
    return content


def offered(page: Any, name: str = "audit_panel") -> Any:
    """A panel in the list of those that can be opened."""
    option = page.locator(f'[data-cy="new-panel-option-{name}"]')

    def open_list() -> None:
        if page.locator(".MuiPopover-root").count():  # opened before the plugin was loaded, it does not get its panels
            page.keyboard.press("Escape")
        page.locator('[data-cy="new-panel-btn"]').first.click(timeout=5000)

    retry(open_list, lambda: option.wait_for(timeout=5000))
    return option


def open_tab(panel: Any, name: str, shows: Any) -> None:
    """Open a tab of a panel, until it shows something."""
    choice = panel.get_by_role("tab", name=name)
    retry(lambda: choice.click(timeout=5000), lambda: shows.wait_for(timeout=10_000))


def open_operator(page: Any, label: str) -> Any:
    """Open an operator's form from the list of operators, by its label or what follows *Audit:* in it."""
    browser = page.locator('[data-cy="operators-browser"]')

    def call() -> None:
        if not browser.is_visible():
            page.locator("body").click(position={"x": 5, "y": 5})
            page.keyboard.press("Backquote")

    retry(call, lambda: browser.wait_for(timeout=5000))
    browser.locator("input").fill(label)
    browser.get_by_text(re.compile(rf"^(Audit: )?{re.escape(label)}$")).click()
    return form_of(page)


def form_of(page: Any) -> Any:
    """The form that is open."""
    return page.locator('[data-cy="operators-prompt-modal"]')


def submit(form: Any, label: str) -> None:
    """Click the button until the App takes it: until its execution options have come, a click does nothing."""
    button = form.get_by_role("button", name=label, exact=True)
    need_browser().expect(button).to_be_enabled()
    retry(lambda: button.click(timeout=2000), lambda: button.wait_for(state="hidden", timeout=2000))


def retry(act: Callable[[], Any], seen: Callable[[], Any], times: int = 30) -> None:
    """Act until the effect is seen: a click on what is drawn again at that moment is lost."""
    error = need_browser().TimeoutError
    for left in reversed(range(times)):
        try:
            act()
        except error:
            if not left:
                raise
        try:
            seen()
            return
        except (error, AssertionError):
            if not left:
                raise


def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    """A fixture of each of `SIZES`, where a module makes it one by `each_size`."""
    return request.param  # type: ignore[no-any-return]


def each_size(sizes: Sequence[tuple[int, int]] = SIZES) -> Any:
    """The fixture `size` of a module; long reviews are done in the first one only, where there is the least room."""
    return pytest.fixture(params=sizes, ids=lambda size: f"{size[0]}x{size[1]}")(size)


def assert_nothing_is_cut_off(panel: Any, what: str) -> None:
    """Nothing in the panel is outside of it, to the left or right."""
    assert panel.evaluate(OUTSIDE) == [], what


def assert_in_sight(page: Any, element: Any, what: str) -> None:
    """The element is in the window, without scrolling."""
    box, height = element.bounding_box(), page.viewport_size["height"]
    assert box["y"] >= 0, what
    assert box["y"] + box["height"] <= height, (what, box, height)


def settle(page: Any, quiet: int = 500) -> None:
    """Wait until all that was asked is answered and drawn: the App draws a tab that was opened several times."""
    page.evaluate(REST, [quiet, PATIENCE])


def tap(page: Any, what: Any) -> None:
    """Press a key or a button once; again only where nothing was asked of the server, since the App was drawing."""
    act = (lambda: page.keyboard.press(what)) if isinstance(what, str) else (lambda: what.click(timeout=5000))
    page.wait_for_timeout(300)  # a second key within 250 ms counts as a double press
    before = page.evaluate("window.audit.pressed")
    is_asked = lambda: page.wait_for_function("before => window.audit.pressed > before", arg=before, timeout=20_000)
    retry(act, is_asked, times=5)


def press(page: Any, what: Any) -> None:
    """Press a key or a button once, and wait until its answer is drawn."""
    tap(page, what)
    settle(page)


def box_of(place: Any) -> dict[str, float]:
    """Where an element is drawn; a `TimeoutError` where it is not, since the App is redrawing it."""
    box = place.bounding_box(timeout=5000)
    if box is None:
        raise need_browser().TimeoutError(f"{place} is not drawn")
    return dict(box)


def edit(page: Any, field: Any) -> None:
    """Put the cursor into a field by the key for it, again where the field was just being drawn."""
    focused = need_browser().expect(field).to_be_focused
    retry(lambda: page.keyboard.press("e"), lambda: focused(timeout=3000))
