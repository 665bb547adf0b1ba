"""The pages of docs/reference, made from what they describe: models, chart, command lines, annotations.

Belongs here: rendering what the code says of itself as Markdown. Does not: sentences about how things work, which are
written by hand in docs/. It is beside the tests because a documentation page is no part of what is installed.
"""

from tests.docs.reference import annotations, chart, commands, objects


def files() -> dict[str, str]:
    """Return the generated pages by file name."""
    return {
        "objects.md": objects.page(),
        "chart.md": chart.page(),
        "commands.md": commands.page(),
        "annotations.md": annotations.page(),
    }
