"""The notebook builder: cells, stubs, links."""

import pytest

SOURCE = '''# %% [markdown]
# # Title
#
# See [the glossary](../docs/glossary.md) and [the solution](solutions/x.ipynb).
#
# **What was seen.** A two,
# no less.
#
# **Explain.** Why?

# %% tags=["nbval-check-output"]
1 + 1

# %%
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %% [markdown] only="solution"
# **Answer.** Because two.

# %% [markdown] only="exercise"
# Why?
'''


@pytest.fixture
def built(builder, tmp_path, monkeypatch):
    (tmp_path / "09_x.py").write_text(SOURCE)
    monkeypatch.setattr(builder, "SOURCES", tmp_path)
    return {variant: builder.build("09_x", variant) for variant in builder.VARIANTS}


def test_cells_and_tags(built):
    learner = built["exercise"]
    assert [cell.cell_type for cell in learner.cells] == ["markdown", "code", "code", "markdown"]
    assert learner.cells[0].source.splitlines()[:2] == ["# Title", ""]
    assert "tags" not in learner.cells[1].metadata, "no stored output to compare with"
    assert built["solution"].cells[1].metadata["tags"] == ["nbval-check-output"]
    assert learner.cells[3].source == "Why?"
    assert built["solution"].cells[3].source.startswith("<details><summary><b>Answer</b></summary>")
    assert "Because two." in built["solution"].cells[3].source


def test_what_was_seen_is_folded_for_the_learner_only(built):
    text = "<details><summary><b>What was seen (open it after you have run the cell)</b></summary>\n\nA two,\nno less.\n\n</details>\n\n**Explain.** Why?"
    assert text in built["exercise"].cells[0].source
    assert (
        "**What was seen.** A two,\nno less.\n\n**Explain.**" in built["solution"].cells[0].source
    )
    assert built["exercise"].cells[0].source.endswith("those above it.")
    assert "Shift+Enter" not in built["solution"].cells[0].source


def test_stub_replaces_the_solution(built):
    assert built["exercise"].cells[2].source == (
        'def double(x):\n    """Twice x."""\n    # Your code here.\n    raise NotImplementedError'
    )
    assert (
        built["solution"].cells[2].source == 'def double(x):\n    """Twice x."""\n    return 2 * x'
    )


def test_links_are_moved_one_folder_down(built):
    text = built["solution"].cells[0].source
    assert "(../../docs/glossary.md)" in text and "(../x.ipynb)" in text


def test_unclosed_region_and_unknown_option_are_refused(builder):
    with pytest.raises(ValueError, match="not closed"):
        builder.stub("### BEGIN SOLUTION\n1")
    with pytest.raises(ValueError, match="unknown cell option"):
        builder.parse('# %% onyl="solution"\n1')


def test_widget_views_and_log_lines_are_not_stored(outputs):
    import nbformat

    view = nbformat.v4.new_output(
        "display_data", data={outputs.WIDGET_VIEW: {}, "text/plain": "HBox()"}
    )
    log = nbformat.v4.new_output("stream", name="stderr", text="a warning")
    text = nbformat.v4.new_output("stream", name="stdout", text="kept")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("x", outputs=[view, log, text])]
    )
    notebook.metadata["widgets"] = {"state": {}}
    outputs.clean(notebook)
    assert notebook.cells[0].outputs == [text] and "widgets" not in notebook.metadata


def test_a_path_of_this_machine_is_refused(outputs):
    import nbformat

    text = nbformat.v4.new_output("stream", name="stdout", text="wrote /home/someone/out.json")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[text])])
    with pytest.raises(ValueError, match="path of this machine"):
        outputs.clean(notebook)


def test_outputs_follow_a_cell_that_moved(built, tmp_path, outputs):
    import nbformat

    before = built["solution"]
    before.cells[1].outputs, before.cells[1].execution_count = (
        [nbformat.v4.new_output("stream", text="2")],
        1,
    )
    nbformat.write(before, tmp_path / "before.ipynb")
    after = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("new"),
            nbformat.v4.new_code_cell("1 + 1"),
            nbformat.v4.new_code_cell("1 + 1"),
        ]
    )
    outputs.keep_outputs(after, tmp_path / "before.ipynb")
    assert after.cells[1].outputs[0].text == "2" and after.cells[1].execution_count == 1
    assert after.cells[2].outputs == []  # one run, one output


def test_pictures_in_html_are_made_smaller(outputs):
    import base64
    import io

    import nbformat
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    html = f'<img alt="noise" src="data:image/png;base64,{encoded}">'
    output = nbformat.v4.new_output("display_data", data={"text/html": html})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[output])])
    outputs.clean(notebook)
    assert len(output["data"]["text/html"]) < 0.7 * len(html)
    small = base64.b64decode(outputs.PICTURE.search(output["data"]["text/html"])[0])
    assert Image.open(io.BytesIO(small)).size == (64, 64)
    words = outputs.printed(output)
    assert '<img alt="noise"' in words and encoded not in words


def test_no_address_no_badges_and_an_address_gives_all(builder, monkeypatch):
    monkeypatch.setattr(builder, "address", lambda: "")
    plain = builder.build("00_start_here", "exercise")
    assert "colab" not in str(plain).lower() and "mybinder" not in str(plain)
    monkeypatch.setattr(builder, "address", lambda: "https://github.com/someone/nuclei")
    learner, solution = (builder.build("00_start_here", v) for v in builder.VARIANTS)
    door = learner.cells[0].source
    assert "/github/someone/nuclei/blob/main/notebooks/00_start_here.ipynb)" in door
    assert "/gh/someone/nuclei/main?labpath=notebooks%2F00_start_here.ipynb)" in door
    assert "git+https://github.com/someone/nuclei" in learner.cells[1].source
    space = {}
    exec(learner.cells[1].source, space)  # not on Colab: nothing happens
    assert "course" not in space
    assert [c.source for c in learner.cells[2:5]] == [c.source for c in plain.cells[1:4]]
    assert "colab" not in str(solution).lower()
    assert len({cell["id"] for cell in learner.cells}) == len(learner.cells)


def test_the_address_is_a_github_address_or_nothing(builder):
    for line, found in (
        ('repository = "https://github.com/a-b/c.d"', "https://github.com/a-b/c.d"),
        ('repository = ""', None),
        ('repository = "github.com/a/b"', None),
    ):
        match = builder.ADDRESS.search(f"[tool.nucleus-course]\n{line}\n")
        assert (match and match[1]) == found


def test_the_gpu_notebook_has_commands_that_exist_and_no_outputs(builder):
    """Its cells are not run by the tests, so every command and option is looked up instead."""
    import shlex

    from typer.main import get_command

    from nucleus_course.cli.app import app

    notebook = builder.build(builder.GPU, "exercise")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    lines = [line for cell in code for line in cell.splitlines() if line.startswith("!")]
    words = [shlex.split(line[1:]) for line in lines]
    commands = get_command(app).commands
    assert [line[1] for line in words] == ["doctor", "download", "train", "evaluate"]
    for line in words:
        known = {option for one in commands[line[1]].params for option in one.opts}
        assert {word for word in line if word.startswith("--")} <= known
    assert {"--time-limit", "--pack"} <= set(words[2])
    for cell in code:
        compile("\n".join(x for x in cell.splitlines() if not x.startswith("!")), "cell", "exec")
    assert "[![Open in Colab]" not in notebook.cells[0].source


def test_with_an_address_the_gpu_notebook_opens_on_colab_alone(builder, monkeypatch):
    monkeypatch.setattr(builder, "address", lambda: "https://github.com/someone/nuclei")
    notebook = builder.build(builder.GPU, "exercise")
    assert f"/someone/nuclei/blob/main/notebooks/{builder.GPU}.ipynb" in notebook.cells[0].source
    assert "mybinder" not in notebook.cells[0].source and "pip" in notebook.cells[1].source
    assert notebook.cells[0].source.count("To run a cell") == 1
