"""JupyterLab as `make lab` starts it, in headless Chromium: an explorer by keyboard, a link to the docs."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CELL = """\
import nucleus_course as nc
from nucleus_course.course.explorers import ImageBrowser

ImageBrowser(nc.load_dataset("sample", "all", progress=False)).widget()
"""
WAIT = 240  # seconds; a busy two-core machine starts a browser and a kernel slowly

pytestmark = pytest.mark.slow


def program(*names):
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="module")
def browser_and_driver():
    pytest.importorskip("selenium", reason="selenium is not installed")
    pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    browser = program("chromium", "chromium-browser", "google-chrome")
    driver = program("chromedriver", "chromium-driver")
    if not browser or not driver:
        pytest.skip(
            "no Chromium with its driver here (Debian: apt install chromium chromium-driver)"
        )
    return browser, driver


@pytest.fixture(scope="module")
def lab(tmp_path_factory, browser_and_driver):
    """The address of a JupyterLab with the Makefile's options, on a copy of a part of the checkout."""
    folder = tmp_path_factory.mktemp("lab")
    for place in ("notebooks/00_start_here.ipynb", "docs/glossary.md"):
        (folder / place).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / place, folder / place)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    options = re.search(r"^lab:.*\n\t\S*jupyter lab(.*)$", makefile, re.M)[1].split()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(notebook, folder / "notebooks" / "explorer.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        JUPYTER_CONFIG_DIR=str(folder / "config"),
        JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
        JUPYTERLAB_SETTINGS_DIR=str(folder / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(folder / "workspaces"),
    )
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jupyterlab",
                *options,
                "--no-browser",
                f"--ServerApp.port={port}",
                "--ServerApp.ip=127.0.0.1",
                "--IdentityProvider.token=",
                "--ServerApp.password=",
                "--allow-root",
                "--LabApp.news_url=",
                "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
        )
        try:
            end = time.time() + WAIT
            while True:
                try:
                    with urllib.request.urlopen(
                        f"http://127.0.0.1:{port}/api/status", timeout=5
                    ) as answer:
                        json.load(answer)
                    break
                except OSError:
                    if server.poll() is not None or time.time() > end:
                        pytest.fail(
                            "JupyterLab did not start:\n"
                            + (folder / "server.log").read_text()[-2000:]
                        )
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


@pytest.fixture(scope="module")
def page(lab, browser_and_driver, tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browser, driver_path = browser_and_driver
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1300,1500",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(service=Service(driver_path), options=options)
    driver.set_page_load_timeout(WAIT)
    yield driver
    driver.quit()


def until(driver, condition, what, seconds=WAIT):
    from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    try:
        return WebDriverWait(
            driver, seconds, ignored_exceptions=(StaleElementReferenceException,)
        ).until(condition)
    except TimeoutException:
        driver.save_screenshot(str(Path(tempfile.gettempdir()) / "nucleus-course-browser-test.png"))
        pytest.fail(f"waited {seconds} s in vain for {what}")


def find(driver, css):
    from selenium.webdriver.common.by import By

    return next(iter(driver.find_elements(By.CSS_SELECTOR, css)), None)


def test_a_slider_moved_with_the_keyboard_changes_the_picture(page, lab, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    page.get(f"{lab}/lab/tree/notebooks/explorer.ipynb")

    def run_the_cell(driver):
        # JupyterLab draws it again when the kernel is ready
        editor = find(driver, ".jp-CodeCell .cm-content")
        ActionChains(driver).click(editor).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(
            Keys.SHIFT
        ).perform()
        return True

    until(page, lambda d: find(d, ".jp-CodeCell .cm-content"), "the notebook")
    until(
        page,
        lambda d: d.find_elements(By.XPATH, "//*[contains(text(), '| Idle')]"),
        "a kernel that is ready",
    )
    until(page, run_the_cell, "the cell")

    picture = until(page, lambda d: find(d, ".widget-html figure img"), "the explorer's picture")
    first = picture.get_attribute("src")
    text = picture.get_attribute("alt")
    assert first.startswith("data:image/png;base64,") and text.startswith("Image 1 of")

    handle = until(page, lambda d: find(d, ".widget-slider .noUi-handle"), "the slider")
    assert handle.get_attribute("role") == "slider"
    page.execute_script("arguments[0].focus()", handle)
    handle.send_keys(Keys.ARROW_RIGHT)
    until(
        page,
        lambda d: find(d, ".widget-html figure img").get_attribute("src") != first,
        "another picture",
        60,
    )
    assert find(page, ".widget-html figure img").get_attribute("alt").startswith("Image 2 of")

    size = find(page, ".widget-html figure img").size
    assert size["width"] > 200 and size["height"] > 150, "the picture can be seen"
    page.save_screenshot(str(tmp_path / "explorer.png"))


def test_every_control_is_reached_with_the_tab_key(page):
    """From the first control, Tab visits the dropdowns and the slider in the order of the page."""
    from selenium.webdriver.common.keys import Keys

    first = until(page, lambda d: find(d, ".widget-dropdown select"), "the first control")
    page.execute_script("arguments[0].focus()", first)
    seen = []
    for _ in range(8):
        active = page.switch_to.active_element
        seen.append(active.get_attribute("role") or active.tag_name)
        active.send_keys(Keys.TAB)
    assert seen.count("select") >= 2 and "slider" in seen, seen


def test_the_glossary_opens_from_a_notebook(page, lab):
    from selenium.webdriver.common.by import By

    page.get(f"{lab}/lab/tree/notebooks/00_start_here.ipynb")
    link = until(page, lambda d: find(d, '.jp-MarkdownCell a[href*="glossary"]'), "the link")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", link)

    def follow(driver):
        find(driver, '.jp-MarkdownCell a[href*="glossary"]').click()
        return True

    until(page, follow, "a click on the link")
    until(
        page,
        lambda d: d.find_elements(
            By.XPATH, "//*[contains(@class, 'lm-TabBar-tabLabel')][contains(., 'glossary.md')]"
        ),
        "a tab with the glossary",
        60,
    )
    until(page, lambda d: "Anchor" in d.find_element(By.TAG_NAME, "body").text, "its text", 60)
